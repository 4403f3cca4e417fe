"""Runs that are left alone and runs that are killed: `python tests/killed.py FOLDER ROW ROW...` makes them.

It imports torch once and forks a child for every part of a run, so that every SIGKILL ends the very process that
trains.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from onestage import pretraining
from onestage.data import open_source
from onestage.engine.metrics import read_metrics
from onestage.objective import Objective
from onestage.pretraining import Recipe, Saving, Watch, loop
from onestage.storage import checkpoint
from onestage.storage.checkpoint import latest, load
from small import ROWS, STEPS, TAUGHT, small
from stepping import brief_categories, brief_codes, taught

PLACES = ("before a step", "between the update and what follows it", "within a save")
AT_ONCE = 2
"""Rows that are trained at the same time."""
OUTSIDE = {"seconds", "img/s", "wait"}
"""What a record says of the machine."""


def main(folder: Path, rows: list[str]) -> None:
    torch.set_num_threads(1)
    loop.LOG_SECONDS = 0.0  # a line of metrics for every step
    len(open_source("digits")[0].texts)  # imports scikit-learn once, here
    if set(rows) & set(TAUGHT):
        assert child(lambda: begin(small("clip", steps=2), folder / "teacher")) == 0
    if any(ROWS[row].needs_codes for row in rows):
        assert child(lambda: brief_codes(str(folder / "teacher"))) == 0
    if any(ROWS[row].needs_categories for row in rows):
        assert child(lambda: brief_categories(str(folder / "teacher"))) == 0
    halves = [rows[first::AT_ONCE] for first in range(AT_ONCE)]
    started = [fork(lambda half=half: [runs_of(row, folder) for row in half] and None) for half in halves]
    assert [ended(number) for number in started] == [0] * AT_ONCE


def runs_of(row: str, folder: Path) -> None:
    """A row's runs, and how each part of them ended. What befalls a row depends on its place in the table alone."""
    number = list(ROWS).index(row)
    recipe, rng = recipe_of(row, folder / "teacher"), random.Random(number)
    first, second = sorted(rng.sample(range(2, STEPS - 1), 2))
    whole, broken = folder / row / "whole", folder / row / "broken"
    codes = [
        child(lambda: begin(recipe, whole)),
        child(lambda: begin(recipe, broken), (PLACES[number % 3], first)),
        child(lambda: go_on(broken), (rng.choice(PLACES), second)),
        child(lambda: go_on(broken)),
    ]
    (folder / row / "codes.json").write_text(json.dumps(codes))


def recipe_of(row: str, teacher: Path) -> Recipe:
    """With drop path everywhere, batch norm in one row, a loading process in another, and a watched one."""
    recipe = small(
        row,
        vit={"drop_path": 0.4} | ({"stem": "conv"} if row == "supervised" else {}),
        teachers=taught(row, str(teacher)),
        workers=1 if row == "mae" else 0,
        saving=Saving(minutes=0.001, keep=3),
    )
    if row == "clip":
        return dataclasses.replace(recipe, val="digits:test", watch=Watch(every=5, samples=16), templates=("a {}",))
    return recipe


def begin(recipe: Recipe, run: Path) -> None:
    pretraining.start(recipe, run, [])


def go_on(run: Path) -> None:
    pretraining.resume(run)


def child(work: Callable[[], None], kill: tuple[str, int] | None = None) -> int:
    """Do some work in a process of its own; its exit code, negative for the signal that ended it."""
    return ended(fork(work, kill))


def ended(number: int) -> int:
    """The exit code of a process that was forked."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def fork(work: Callable[[], None], kill: tuple[str, int] | None = None) -> int:
    """Begin some work in a process of its own, whose number is returned."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        if kill is not None:
            die(*kill)
        work()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def die(place: str, step: int) -> None:
    """Have this process end by SIGKILL at a place of a step (in a save: of the first one after it)."""

    def dead() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    seeded, committed, put = loop.step_seed, Objective.after_step, checkpoint._put_in_place

    def at_seed(seed: int, now: int) -> int:
        return dead() or 0 if now >= step else seeded(seed, now)

    def at_commit(self: Objective, now: int, total: int, *products: object) -> None:
        dead() if now >= step else committed(self, now, total, *products)

    def at_save(temporary: Path, path: Path) -> None:
        dead() if int(path.name.removeprefix("step_")) >= step else put(temporary, path)

    if place == PLACES[0]:
        loop.step_seed = at_seed
    elif place == PLACES[1]:
        Objective.after_step = at_commit  # pyright: ignore[reportAttributeAccessIssue]
    else:
        checkpoint._put_in_place = at_save


def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parent)]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def newest(run: Path) -> checkpoint.Checkpoint:
    path = latest(run / "checkpoints")
    assert path is not None
    return load(path)


def measured(run: Path) -> list[dict[str, object]]:
    records = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in OUTSIDE} for record in records]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
