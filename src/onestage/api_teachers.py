"""The verbs about the answers of frozen teachers as functions: plan, teach."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage import pretraining
from onestage.api_given import Given, make_recipe
from onestage.bench.planned import plan as planned
from onestage.distributed import rank
from onestage.engine.together import joined, together
from onestage.teachers.serving import Codec


def teach(
    recipe: Given,
    *,
    views: int,
    out: str | Path,
    data: str | None = None,
    teacher: str | None = None,
    codec: Codec = "int8",
    shard_mb: float = 256.0,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Precompute a teacher's answers for `views` views of every picture; typed again, it goes on where it was.

    Returns:
        The folder of the store, for `serving.mode: {kind: store, folder: ...}`.

    Raises:
        UserError: when the recipe has no teacher, or the folder holds something else.
    """
    with joined():
        made = together(lambda: make_recipe(recipe, data=data, teacher=teacher, settings=settings))
        return pretraining.teach(made, views, Path(out), codec, shard_mb, say)


def plan(
    recipe: Given,
    *,
    data: str | None = None,
    teacher: str | None = None,
    gpus: int = 1,
    gpu: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """What a run will cost, as text: bytes, time in each way of serving its teachers, memory and break-even.

    Args:
        gpu: a kind of GPU that is not at hand; without it, a few steps are measured here.
    """
    return planned(make_recipe(recipe, data=data, teacher=teacher, settings=settings), gpus, gpu)


def say(line: str) -> None:
    """A line for people, told once by all processes of a run."""
    if rank() == 0:
        print(line, file=sys.stderr)
