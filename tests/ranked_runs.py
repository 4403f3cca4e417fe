"""Whole runs by one and by two processes, through the command line, for the tests of `distributed`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from onestage import cli
from onestage.data import Draw, open_source
from onestage.engine import loader
from onestage.engine.groups import Group, Optimiser
from onestage.pretraining import Recipe, Saving, Watch, loop
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError, to_yaml
from onestage.types import Batch
from ranked import ranks
from small import small

STEPS = 4


def recipe_of(name: str) -> Recipe:
    """`norm`: with batch norm, watched; `pieces`: accumulated, without; `whole`: the same at once."""
    # Adam makes a whole step of a gradient that is zero but for rounding, unless its eps is above that.
    optimiser = Optimiser(groups={"all": Group(lr=1e-3, clip=1.0, eps=1e-4)}, reference_batch=8)
    given = {"steps": STEPS, "optimiser": optimiser, "templates": ("a {}",), "saving": Saving(keep=9)}
    if name == "norm":
        watch = Watch(every=2, samples=16)
        return small("clip", vit={"stem": "conv"}, val="digits:test", watch=watch, workers=1, **given)
    if name == "whole":
        return small("clip", **given)
    return small("clip", accumulate=2, **given)


def runs(folder: Path) -> dict[str, list[int]]:
    """The exit codes of every run's ranks."""
    len(open_source("digits")[0].texts)  # imports scikit-learn once, here
    loop.LOG_SECONDS = 0.0
    for name in ("norm", "whole", "pieces"):
        (folder / f"{name}.yaml").write_text(to_yaml(recipe_of(name)))

    def start(count: int, name: str, out: str, *more: str) -> list[int]:
        words = ["pretrain", str(folder / f"{name}.yaml"), "--out", str(folder / out), *more]
        return ranks(count, lambda: cli.command(words), folder / f"log_{out}")

    def interrupted() -> int:
        """SIGTERM reaches rank 1 alone, before the second step."""
        seeded = loop.step_seed

        def at(seed: int, step: int) -> int:
            if step == 1 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            return seeded(seed, step)

        loop.step_seed = at
        return cli.command(["pretrain", str(folder / "whole.yaml"), "--out", str(folder / "stopped")])

    def unlucky() -> int:
        """Single samples are damaged on both ranks, and rank 1 alone finds at the second step that all are."""
        made, begin = loader.Batches.__getitem__, loader.Batches._begin

        def batch(self: loader.Batches, step: int) -> Batch:
            if step == 1 and self.rank == 1:
                raise UserError("digits: all of it is damaged")
            return made(self, step)

        def sample(self: loader.Batches, sample: Sample, draw: Draw, part: Source) -> loader.Begun:
            if sum(map(ord, sample.key)) % 3 == 0:
                raise BadSample("torn")
            return begin(self, sample, draw, part)

        loader.Batches.__getitem__, loader.Batches._begin = batch, sample  # pyright: ignore[reportAttributeAccessIssue]
        return cli.command(["pretrain", str(folder / "pieces.yaml"), "--out", str(folder / "damaged")])

    def full() -> int:
        """Rank 0 cannot write its checkpoint of the last step."""
        save = loop.save

        def at(place: Path, step: int, *rest: object) -> Path:
            if step:
                raise UserError("the disk is full")
            return save(place, step, *rest)  # pyright: ignore[reportArgumentType]

        loop.save = at  # pyright: ignore[reportAttributeAccessIssue]
        return cli.command(["pretrain", str(folder / "whole.yaml"), "--out", str(folder / "full")])

    return {
        "norm1": start(1, "norm", "norm1"),
        "norm2": start(2, "norm", "norm2"),
        "whole1": start(1, "whole", "whole1"),
        "pieces2": start(2, "pieces", "pieces2"),
        "stopped": ranks(2, interrupted, folder / "log_stopped"),
        "damaged": ranks(2, unlucky, folder / "log_damaged"),
        "full": ranks(2, full, folder / "log_full"),
        "uneven": start(2, "whole", "uneven", "--batch", "6"),
    }
