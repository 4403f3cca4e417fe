"""What an evaluation is made with, from what a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onestage import pretraining
from onestage.data import open_source
from onestage.evaluation import EVALUATIONS
from onestage.roles import Source
from onestage.spec import UserError, suggest
from onestage.teachers import NO_RUNS, AnyTeacher, parse_run

LEARNING = frozenset({"knn", "linear", "dense-probe"})
"""Evaluations that learn from data of their own."""


def known_task(task: str) -> None:
    """Raise UserError unless there is such an evaluation."""
    if task not in EVALUATIONS:
        known = list(EVALUATIONS)
        raise UserError(f"there is no evaluation '{task}'{suggest(task, known)} (known: {', '.join(known)})")


def options_of(
    task: str,
    frozen: AnyTeacher,
    classes: str | None,
    prompt: Sequence[str],
    pool: str | None,
    limit: int | None,
) -> dict[str, Any]:
    """What an evaluation is built with, from what was given."""
    options: dict[str, Any] = {"limit": limit}
    if task in {"classify", "dense-probe"}:
        if pool is not None:
            raise UserError(f"{task}: --pool {pool} chooses the features of zero-shot, retrieval, knn and linear")
    elif pool is not None:
        options["pool"] = pool
    if task == "zero-shot":
        templates = () if tuple(prompt) == ("clip",) else tuple(prompt) or frozen.templates
        options |= {"classes": Path(classes) if classes else None, "templates": templates or None}
    elif prompt or classes:
        raise UserError(f"{task}: --prompt and --classes belong to zero-shot")
    return options


def bank_of(task: str, reference: str, train: str | None) -> Source | None:
    """What an evaluation learns from: what was given, else the model's own training data; None where it learns from
    nothing.

    Raises:
        UserError: for a model that names no training data.
    """
    if task not in LEARNING:
        return None
    if train is not None:
        return open_source(train)
    if reference.startswith(NO_RUNS):
        raise UserError(f"{task}: give --train SRC, data with labels or masks to learn from; {reference} names none")
    source = pretraining.read_run(parse_run(reference)[0]).data
    assert source is not None, "a run was trained on something"
    return open_source(source)


def folder_for(file: Path) -> None:
    """Make the folder of a file that is to be written: before the work whose result it will hold."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}). Choose another place.") from None
