"""Starting and resuming runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from onestage.distributed import rank
from onestage.engine.groups import scale_note
from onestage.engine.together import together
from onestage.pretraining.bundle import save_bundle
from onestage.pretraining.directory import create, read_run, refuse_taken
from onestage.pretraining.initialise import initialise_from
from onestage.pretraining.lines import Say
from onestage.pretraining.loop import Progressed, run_loop, write_checkpoint
from onestage.pretraining.prepare import ANSWERS, Prepared, prepare, stills
from onestage.pretraining.spec import Recipe
from onestage.pretraining.watch import refuse_unwatchable, watched
from onestage.spec import UserError
from onestage.storage import latest, load

Moved = Callable[[Recipe], Recipe]
"""A run's recipe where it goes on on another machine."""


def same(recipe: Recipe) -> Recipe:
    """On the machine where it began."""
    return recipe


def start(recipe: Recipe, out: Path, command: list[str], say: Say = print) -> Progressed:
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
        say(f"--init {init}: {matched}")
    together(lambda: _found(prepared, out, command, say))
    say(scale_note(recipe.optimiser, recipe.batch))
    return _run(prepared, out, Progressed(), say)


def _found(prepared: Prepared, out: Path, command: list[str], say: Say) -> None:
    """Write what a run is before its first step; one process does."""
    if rank() == 0:
        create(out, prepared.recipe, command)
        save_bundle(prepared, out, say)
        write_checkpoint(prepared, out, Progressed())


def resume(run: Path, say: Say = print, moved: Moved = same) -> Progressed:
    """Go on with a run from its newest complete checkpoint; a finished run is left as it is. The number of processes
    may be another than before: the samples and their order are the same.

    Args:
        moved: its recipe where it goes on on another machine; the run's own stays as it is written.

    Raises:
        UserError: when it is not a run, its data have changed, or no checkpoint fits.
    """
    prepared, now = together(lambda: _go_on(run, say, moved))
    if now.step >= prepared.total:
        return now
    return _run(prepared, run, now, say)


def _run(prepared: Prepared, run: Path, start: Progressed, say: Say) -> Progressed:
    """Train to the end, and say what was seen on the way."""
    together(prepared.server.open)
    told = stills(prepared.recipe.method, prepared.source)
    if told:
        say(told)
    now = run_loop(prepared, run, start, watched(prepared, say))
    prepared.server.close()
    with suppress(OSError):  # it is not there, or not empty
        (run / ANSWERS).rmdir()
    samples = now.step * prepared.recipe.batch
    shown = f"{samples:,} images, {now.texts:,} image-text pairs"
    say(f"seen: {shown if prepared.recipe.method.views else f'{samples:,} texts, no images'}")
    return now


def _go_on(run: Path, say: Say, moved: Moved) -> tuple[Prepared, Progressed]:
    """A run in memory as its newest checkpoint has it, and where it is."""
    recipe = moved(read_run(run))
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
