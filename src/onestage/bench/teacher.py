"""`onestage bench teacher`: training with a live teacher against replay, the teacher being so many times the student.

The teacher's depth is chosen so that its forward pass costs `ratio` times the student's forward and backward pass.
With T and S their times for an image, replay for r epochs can be (T + S) / (T / r + S) times as fast as live. An epoch
that asks the teacher about everything is among every r, wherever the counting starts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, final

from PIL import Image
from pydantic import Field

from onestage.bench.costs import Costs, measured, wait
from onestage.bench.plan import seconds_of
from onestage.bench.timing import Rate, in_turn, ratio, summary
from onestage.data import Scenes
from onestage.encoders import Vit
from onestage.engine.pieces import on_device
from onestage.methods import METHODS
from onestage.pretraining import Prepared, Recipe, Watch, prepare, start
from onestage.recipes.tiny import SIZE, VIT, tiny
from onestage.spec import spec
from onestage.teachers.serving import Live, Replay, Serving

WIDTH, HEADS = 192, 3
"""Of the teacher."""
LAST = 10**6
"""Steps of the runs that are measured, which never end."""


@final
@spec
class TeacherBench:
    """Training with a live teacher against replay, for a teacher that costs so many times the student."""

    ratio: Annotated[float, Field(gt=0)] = 8.0
    """The teacher's forward pass over the student's forward and backward pass."""
    epochs: Annotated[int, Field(ge=2)] = 4
    """Passes over the data that a crop is kept."""
    images: Annotated[int, Field(ge=64)] = 256
    """Pictures of the data, made in a temporary folder."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Measurements of live and replay, in turn: one epoch of live, `epochs` of replay."""

    def run(self) -> Iterator[dict[str, Any]]:
        """What the models cost, the first fill, then the rates from the second epoch on and their ratio."""
        with TemporaryDirectory() as place:
            folder = Path(place)
            _pictures(folder / "pictures", self.images)
            teacher = _teacher(folder, self.ratio)
            live = prepare(_recipe(folder, teacher, Live()), folder / "live" / "quarantine.jsonl")
            kept = prepare(_recipe(folder, teacher, Replay(epochs=self.epochs)), folder / "kept" / "quarantine.jsonl")
            probe = prepare(live.recipe, None)
            costs = measured(probe)
            bound = (costs.teacher + costs.student) / (costs.teacher / self.epochs + costs.student)
            yield {
                "case": "teacher",
                "teacher_ms": round(costs.teacher * 1e3, 3),
                "student_ms": round(costs.student * 1e3, 3),
                "ratio": round(costs.teacher / costs.student, 2),
                "bound": round(bound, 2),
            }
            yield from _compared(live, kept, probe, self.epochs, self.rounds)
            kept.server.close()


def _compared(live: Prepared, kept: Prepared, probe: Prepared, epochs: int, rounds: int) -> Iterator[dict[str, Any]]:
    each = len(live.source) // live.recipe.batch
    passes = {name: count(1) for name in ("live", "replay")}

    def several(prepared: Prepared, name: str, number: int) -> float:
        return _rate(prepared, range(number * each, (number + 1) * each), name)

    several(live, "live", 0)  # warms up
    fill = several(kept, "replay", 0)
    yield {"case": "teacher", "mode": "replay", "epoch": "first fill", "img_s": round(fill, 1)}
    costs: list[Costs] = []

    def plan() -> float:
        costs.append(measured(probe, rounds=1))
        return 1 / seconds_of(costs[-1], 0, 1, kept=False)

    contestants: dict[str, Callable[[], float]] = {
        "live": lambda: several(live, "live", next(passes["live"])),
        "replay": lambda: _over([several(kept, "replay", next(passes["replay"])) for _ in range(epochs)]),
        "planned live": plan,
    }
    found = in_turn(contestants, rounds)
    found["planned replay"] = [1 / seconds_of(one, 0, epochs, kept=True) for one in costs]
    for name in ("live", "replay"):
        line = {"case": "teacher", "mode": name, "epoch": "from the second on"} | _told(summary(found[name]), 1)
        yield line | {"planned_over_measured": round(ratio(found[f"planned {name}"], found[name]).median, 2)}
    yield {"case": "teacher", "compared": "replay over live"} | _told(ratio(found["replay"], found["live"]), 2)


def _over(rates: list[float]) -> float:
    """The rate of epochs of one length, one after the other."""
    return len(rates) / sum(1 / rate for rate in rates)


def _told(rate: Rate, digits: int) -> dict[str, Any]:
    word = "img_s" if digits == 1 else "times"
    return {word: round(rate.median, digits), "quartiles": [round(rate.low, digits), round(rate.high, digits)]}


def _rate(prepared: Prepared, steps: range, name: str) -> float:
    """Images a second of some steps, as the loop takes them."""
    began = time.perf_counter()
    for step in steps:
        batch = on_device(prepared.batches[step], prepared.device)
        prepared.optimisers.set_lr(prepared.recipe.schedule, step, prepared.total)
        prepared.step(batch, step, prepared.total)
    wait(prepared.device)
    return len(steps) * prepared.recipe.batch / (time.perf_counter() - began)


def _recipe(folder: Path, teacher: Path, mode: Live | Replay) -> Recipe:
    made = tiny([(1.0, METHODS["uta"])], "demo")
    return dataclasses.replace(
        made,
        data=str(folder / "pictures"),
        teachers={"teacher": str(teacher)},
        serving=Serving(mode=mode),
        steps=LAST,
        watch=Watch(),
        workers=0,
    )


def _teacher(folder: Path, wanted: float) -> Path:
    """A teacher of the depth that costs so many times the student: a line through the costs of two depths."""
    costs = []
    for depth in (2, 6):
        run = _drawn(folder / f"teacher_{depth}", depth)
        costs.append(measured(prepare(_recipe(folder, run, Live()), None)))
    student = min(cost.student for cost in costs)
    slope = (costs[1].teacher - costs[0].teacher) / 4
    depth = max(round(2 + (wanted * student - costs[0].teacher) / slope), 1)
    return _drawn(folder / "teacher", depth)


def _drawn(run: Path, depth: int) -> Path:
    """A run of one step: a teacher of that depth that knows nothing, and costs as much as one that does."""
    made = tiny([(1.0, METHODS["clip"])], "smoke")
    models = {name: _deep(model, depth) if isinstance(model, Vit) else model for name, model in made.models.items()}
    recipe = dataclasses.replace(made, models=models, data="scenes", steps=1, watch=Watch(), workers=0)
    start(recipe, run, [], lambda line: None)
    return run


def _deep(model: Vit, depth: int) -> Vit:
    return dataclasses.replace(model, width=WIDTH, heads=HEADS, depth=depth, stem=VIT.stem)


def _pictures(folder: Path, images: int) -> None:
    """Built-in scenes as files."""
    folder.mkdir()
    scenes = Scenes()
    for number in range(images):
        Image.fromarray(scenes[number].picture.decode()).resize((SIZE, SIZE)).save(folder / f"{number:06}.png")
