"""A chain: recipes that are run one after another, each from what the one before has left, with probes after each.

Large vision models are pre-trained so (M3I, arXiv:2211.09807, introduction): what a stage adds and what it forgets is
then seen in the probes, beside a single stage. Each stage is a run of its own under the chain's folder:

DIR/chain.yaml      what was asked, written first: what has one is a chain
DIR/1_NAME/ ...     the runs
DIR/chain.json      what each finished stage took and what its probes found
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, final

from pydantic import Field

from onestage.data import open_source
from onestage.distributed import rank
from onestage.engine.together import together
from onestage.evaluation.probes import SPLITS, Probed, probe
from onestage.objective import Frozen
from onestage.pretraining.directory import refuse_taken
from onestage.pretraining.lines import Say
from onestage.pretraining.prepare import open_data
from onestage.pretraining.run import Moved, resume, same, start
from onestage.pretraining.spec import Recipe
from onestage.roles import Source
from onestage.spec import Stopped, UserError, from_plain, read_yaml, spec, to_yaml
from onestage.storage import write_atomic
from onestage.teachers import load

MAX_JSON = 1 << 20


@final
@spec
class Stage:
    """A recipe, and what it takes from the stage before: its weights to start from, or it as the frozen teacher."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    recipe: Recipe
    takes: tuple[Literal["weights", "teacher"], ...] = ()
    share: Annotated[float, Field(gt=0)] = 1.0
    """Its part of a length that is given for the whole chain."""


@final
@spec
class Chain:
    """Stages in their order.

    Raises:
        UserError: when two have one name, or a stage cannot take what it is to take.
    """

    name: str
    cite: str
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    probed: Annotated[int, Field(ge=0)] = 4000
    """Images at most that a probe learns from, and that it is judged on; 0: no probes."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise UserError(f"chain {self.name}: two stages have one name ({', '.join(names)})")
        for number, stage in enumerate(self.stages):
            if number == 0 and stage.takes:
                raise UserError(f"chain {self.name}: {stage.name} is the first stage, so there is nothing to take")
            frozen = stage.recipe.method.named(Frozen)
            if "teacher" in stage.takes and len(frozen) != 1:
                raise UserError(
                    f"chain {self.name}: {stage.name} takes a teacher, but method {stage.recipe.method.name} learns "
                    f"from {len(frozen)} of them"
                )

    def lasting(self, steps: int) -> Chain:
        """The same chain of `steps` in all, a step at least for each stage."""
        shares = [stage.share for stage in self.stages]
        ends = [round(steps * part / sum(shares)) for part in accumulate(shares)]
        counts = [max(end - start, 1) for start, end in pairwise([0, *ends])]
        named = dict(zip((stage.name for stage in self.stages), counts, strict=True))
        return self.each(lambda stage: dataclasses.replace(stage.recipe, steps=named[stage.name], epochs=None))

    def each(self, change: Callable[[Stage], Recipe]) -> Chain:
        """The same chain with changed recipes."""
        stages = tuple(dataclasses.replace(stage, recipe=change(stage)) for stage in self.stages)
        return dataclasses.replace(self, stages=stages)

    def folders(self, out: Path) -> list[Path]:
        """The runs of its stages, in their order."""
        return [out / f"{number}_{stage.name}" for number, stage in enumerate(self.stages, start=1)]


class Finished(NamedTuple):
    """A line of `chain.json`: a stage that is done, and its probes where the data could be probed."""

    stage: str
    run: str
    takes: list[str]
    steps: int
    samples: int
    seconds: float
    probes: dict[str, Any] | None


def is_chain(folder: Path) -> bool:
    """Whether a folder is that of a chain."""
    return (folder / "chain.yaml").is_file()


def read_chain(folder: Path) -> Chain:
    """The chain that a folder was made by.

    Raises:
        UserError: when it holds none, or it is damaged.
    """
    path = folder / "chain.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: not a chain (there is no chain.yaml in it)")
    return from_plain(Chain, read_yaml(path), str(path))


def finished(folder: Path) -> list[Finished]:
    """The stages that are done.

    Raises:
        UserError: when `chain.json` is damaged.
    """
    path = folder / "chain.json"
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"{path.stat().st_size} bytes are too many")
        return [Finished(**stage) for stage in json.loads(path.read_text(encoding="utf-8"))["stages"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it, and the stages are probed again") from None


def start_chain(chain: Chain, out: Path, command: list[str], say: Say) -> list[Finished]:
    """Run all stages of a chain into a new directory.

    Raises:
        UserError: for a mistake that can be known beforehand; nothing is written then.
        Stopped: after SIGTERM, once the stage at hand is saved.
    """
    together(lambda: refuse_taken(out))
    for stage in chain.stages:
        together(lambda stage=stage: open_data(stage.recipe))
    together(lambda: _found(chain, out))
    return _run(chain, out, command, say)


def resume_chain(out: Path, command: list[str], say: Say, moved: Moved = same) -> list[Finished]:
    """Go on with a chain: finished stages are left as they are, one that was interrupted is gone on with.

    Args:
        moved: the recipe of a stage where it goes on on another machine.
    """
    chain = together(lambda: read_chain(out).each(lambda stage: moved(stage.recipe)))
    return _run(chain, out, command, say, moved)


def _found(chain: Chain, out: Path) -> None:
    if rank() != 0:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "chain.yaml", to_yaml(chain))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None


def _run(chain: Chain, out: Path, command: list[str], say: Say, moved: Moved = same) -> list[Finished]:
    sources = together(lambda: _probed_on(chain, say))
    done = {stage.stage: stage for stage in together(lambda: finished(out))}
    before: Path | None = None
    for number, (stage, run) in enumerate(zip(chain.stages, chain.folders(out), strict=True), start=1):
        if stage.name not in done:
            say(f"chain {chain.name}: stage {number} of {len(chain.stages)}, {stage.name}")
            done[stage.name] = _stage(chain, stage, before, run, sources, command, say, moved)
            if rank() == 0:
                write_atomic(out / "chain.json", json.dumps(_record(chain, done), indent=1) + "\n")
        before = run
    together(lambda: None)  # nobody leaves before it is written
    return list(done.values())


def _stage(
    chain: Chain,
    stage: Stage,
    before: Path | None,
    run: Path,
    sources: tuple[Source, Source] | None,
    command: list[str],
    say: Say,
    moved: Moved,
) -> Finished:
    """Run a stage, or go on with it, and probe it."""
    try:
        if (run / "run.yaml").is_file():
            now = resume(run, say, moved)
        else:
            now = start(_given(stage, before), run, command, say)
    except Stopped as stopped:
        told = f"chain {chain.name} stopped in stage {stage.name}; go on with: onestage pretrain --resume {run.parent}"
        raise Stopped(told if str(stopped) else "") from None
    found = None
    if sources is not None and rank() == 0:
        found = probe(load(str(run)), *sources, chain.probed)
        say(f"chain {chain.name}: {stage.name}: {_told(found)}")
    samples = now.step * stage.recipe.batch
    probes = None if found is None else found._asdict()
    return Finished(stage.name, run.name, list(stage.takes), now.step, samples, round(now.seconds, 1), probes)


def _given(stage: Stage, before: Path | None) -> Recipe:
    """A stage's recipe with what it takes."""
    recipe = stage.recipe
    if before is None:
        return recipe
    if "weights" in stage.takes:
        recipe = dataclasses.replace(recipe, init=str(before))
    if "teacher" in stage.takes:
        recipe = dataclasses.replace(recipe, teachers=dict.fromkeys(recipe.method.named(Frozen), str(before)))
    return recipe


def _probed_on(chain: Chain, say: Say) -> tuple[Source, Source] | None:
    """What probes learn from and what they are judged on; None, with the reason said, where that is not to be had."""
    recipe = chain.stages[0].recipe
    assert recipe.data is not None, "data are opened before"
    val = recipe.val or SPLITS.get(recipe.data)
    if chain.probed == 0 or val is None:
        say(f"chain {chain.name}: no probes after its stages" + ("" if val else "; give --val SRC, data with labels"))
        return None
    train, data = open_source(recipe.data), open_source(val)
    for source in (train, data):
        if not source.has_labels:
            say(f"chain {chain.name}: no probes after its stages, since {source.name} has no labels")
            return None
    return train, data


def _told(found: Probed) -> str:
    shown = {name: value for name, value in found._asdict().items() if isinstance(value, float)}
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items())


def _record(chain: Chain, done: dict[str, Finished]) -> dict[str, Any]:
    stages = [done[stage.name]._asdict() for stage in chain.stages if stage.name in done]
    return {"name": chain.name, "cite": chain.cite, "data": chain.stages[0].recipe.data, "stages": stages}
