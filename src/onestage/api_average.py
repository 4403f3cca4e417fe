"""The verb average as a function: a point between two runs, and what is found along the line (WiSE-FT)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onestage.api_evaluate import bank_of, known_task, options_of
from onestage.api_teachers import say
from onestage.data import open_source
from onestage.evaluation import EVALUATIONS
from onestage.pretraining import read_run, refuse_taken, write_average
from onestage.spec import UserError, from_plain
from onestage.teachers import Line, line_between, model_of, parse_run, read_stored

ALPHAS = tuple(step / 10 for step in range(11))


def average(
    first: str | Path,
    second: str | Path,
    *,
    out: str | Path,
    alpha: float = 0.5,
    tasks: Sequence[str] = (),
    data: Sequence[str] = (),
    train: str | None = None,
    alphas: Sequence[float] = ALPHAS,
    limit: int | None = None,
) -> Path:
    """The weights (1 - alpha) A + alpha B of two runs of one architecture as a run of its own.

    With tasks, models along the line are evaluated at `alphas`, and the report of the run draws the curve.

    Args:
        first: A, the model before fine-tuning: a run, or `uta:FILE`.
        second: B, the run after it, whose recipe the average is told with.
        tasks: evaluations (`zero-shot`, `linear`, ...), each on every source of `data`.
        train: what probes learn from; B's own training data unless given.

    Returns:
        The directory.

    Raises:
        UserError: when the two differ in their architecture, or an evaluation cannot be made; nothing is written then.
    """
    for value in (alpha, *alphas):
        if not 0 <= value <= 1:
            raise UserError(f"alpha {value:g}: expected a number from 0 (the first run) to 1 (the second)")
    if bool(tasks) != bool(data):
        raise UserError("a curve needs both: what to evaluate (--tasks zero-shot linear) and on what (--data SRC)")
    for task in tasks:
        known_task(task)
    names, folder = (str(first), str(second)), Path(out)
    refuse_taken(folder)
    read_run(parse_run(names[1])[0])
    line = line_between(*((name, *read_stored(name)) for name in names))
    for note in line.notes:
        say(note)
    told: dict[str, Any] = {"first": names[0], "second": names[1], "alpha": alpha}
    told["curve"] = _curve(line, names[1], tasks, data, train, sorted(set(alphas)), limit)
    return write_average(line, alpha, names[1], folder, told, sys.argv)


def _curve(
    line: Line,
    second: str,
    tasks: Sequence[str],
    data: Sequence[str],
    train: str | None,
    alphas: Sequence[float],
    limit: int | None,
) -> list[dict[str, Any]]:
    """What each task finds on each source at each alpha."""
    if not tasks:
        return []
    sources = {name: open_source(name) for name in data}
    found = []
    for alpha in alphas:
        model = model_of(f"the average at {alpha:g}", line.at(alpha), "student", None, torch.device("cpu"))
        for task in tasks:
            bank = bank_of(task, second, train)
            evaluator = from_plain(EVALUATIONS[task], options_of(task, model, None, (), "cls", limit), task)
            for name, source in sources.items():
                metrics = evaluator.run(model, source, bank)
                found.append({"alpha": alpha, "task": task, "data": name, "metrics": metrics})
                value = next(iter(metrics.values()))
                say(f"alpha {alpha:g}: {task} on {name}: {next(iter(metrics))} {value:.4f}")
    return found
