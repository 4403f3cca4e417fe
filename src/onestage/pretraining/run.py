"""Starting, resuming and initialising runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from onestage.distributed import rank
from onestage.engine.optimiser import scale_note
from onestage.engine.together import together
from onestage.objective import Ema, Objective, Trained
from onestage.pretraining.bundle import save_bundle
from onestage.pretraining.directory import create, read_run, refuse_taken
from onestage.pretraining.loop import Progressed, run_loop, write_checkpoint
from onestage.pretraining.prepare import Prepared, prepare
from onestage.pretraining.spec import Recipe
from onestage.pretraining.watch import evaluations, refuse_unwatchable
from onestage.spec import UserError
from onestage.storage import latest, load, load_checkpoint
from onestage.teachers import parse_run, read_bundle


class Matched(NamedTuple):
    """What `--init` found: names loaded, names of this model that it lacks, and names whose shapes differ."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    differing: tuple[str, ...]


def start(recipe: Recipe, out: Path, command: list[str], say=print) -> Progressed:  # noqa: ANN001
    """Execute a recipe into a new directory.

    Raises:
        UserError: for every mistake that can be known before the first step; nothing is written then.
    """
    together(lambda: refuse_taken(out))
    prepared = together(lambda: prepare(recipe, out / "quarantine.jsonl"))
    together(lambda: refuse_unwatchable(prepared))
    init = recipe.init
    if init is not None:
        matched = together(lambda: initialise_from(prepared.objective, prepared.recipe, init))
        say(f"--init {init}: {len(matched.loaded)} tensors loaded, {len(matched.missing)} left as they were")
    together(lambda: _found(prepared, out, command, say))
    say(scale_note(recipe.optimiser, recipe.batch))
    return _to_the_end(prepared, out, Progressed())


def _found(prepared: Prepared, out: Path, command: list[str], say) -> None:  # noqa: ANN001
    """Write what a run is before its first step; one process does."""
    if rank() == 0:
        create(out, prepared.recipe, command)
        save_bundle(prepared, out, say)
        write_checkpoint(prepared, out, Progressed())


def resume(run: Path, say=print) -> Progressed:  # noqa: ANN001
    """Go on with a run from its newest complete checkpoint; a finished run is left as it is. The number of processes
    may be another than before: the samples and their order are the same.

    Raises:
        UserError: when it is not a run, its data have changed, or no checkpoint fits.
    """
    prepared, now = together(lambda: _go_on(run, say))
    if now.step >= prepared.total:
        return now
    return _to_the_end(prepared, run, now)


def _to_the_end(prepared: Prepared, run: Path, now: Progressed) -> Progressed:
    """Train; what was kept of the teachers' answers is needed no more then."""
    now = run_loop(prepared, run, now, evaluations(prepared.recipe))
    prepared.server.close()
    return now


def _go_on(run: Path, say) -> tuple[Prepared, Progressed]:  # noqa: ANN001
    """A run in memory as its newest checkpoint has it, and where it is."""
    recipe = read_run(run)
    path = latest(run / "checkpoints")
    prepared = prepare(recipe, run / "quarantine.jsonl")
    if rank() == 0 and not (run / "bundle" / "bundle.yaml").is_file():
        save_bundle(prepared, run, say)
    if path is None:
        say(f"{run}: no complete checkpoint yet, starting at step 0")
        if recipe.init is not None:
            initialise_from(prepared.objective, recipe, recipe.init)
        return prepared, Progressed()
    checkpoint = load(path)
    now = Progressed(**{key: checkpoint.meta[key] for key in Progressed._fields})
    if now.step >= prepared.total:
        say(f"{run}: finished ({now.step} of {prepared.total} steps); nothing to do")
        return prepared, now
    if checkpoint.meta["data"] != prepared.source.fingerprint():
        raise UserError(
            f"{run}: the data of {recipe.data} have changed since step {now.step}; the same run cannot go on with "
            "other data. Start a new one with --init."
        )
    restore(prepared, checkpoint.tensors)
    say(f"{run}: going on at step {now.step} of {prepared.total}")
    return prepared, now


def restore(prepared: Prepared, tensors: dict[str, dict[str, Tensor]]) -> None:
    """Weights, averages, buffers and the optimiser as they were."""
    prepared.objective.load_state_dict(tensors["model"])
    prepared.optimisers.load(tensors["optimiser"])


@torch.no_grad()
def initialise_from(objective: Objective, recipe: Recipe, reference: str) -> Matched:
    """Start the encoders from a run's weights: the student from its student, others by name, averages from theirs.

    Raises:
        UserError: when nothing fits.
    """
    run, step, which = parse_run(reference)
    bundle = read_bundle(run)
    source = bundle.average if which == "ema" and bundle.average else bundle.name
    weights = load_checkpoint(run, step).tensors["model"]
    renamed = {name: source if name == recipe.student else name for name in recipe.method.named(Trained)}
    loaded, missing, differing = [], [], []
    for name in renamed:
        for key, own in objective.encoders[name].state_dict().items():
            given = weights.get(f"encoders.{renamed[name]}.{key}")
            if given is None:
                missing.append(f"{name}.{key}")
            elif given.shape != own.shape:
                differing.append(f"{name}.{key}")
            else:
                own.copy_(given)
                loaded.append(f"{name}.{key}")
    if not loaded or differing:
        shown = ", ".join((differing or missing)[:3])
        raise UserError(
            f"--init {reference}: {len(loaded)} tensors fit, {len(differing)} have another shape and {len(missing)} "
            f"are not in it ({shown}...). The encoder must have the same architecture, width, depth, patch and size."
        )
    for name, role in recipe.method.encoders.items():
        if isinstance(role, Ema):
            objective.encoders[name].load_state_dict(objective.encoders[role.of].state_dict())
    return Matched(tuple(loaded), tuple(missing), tuple(differing))
