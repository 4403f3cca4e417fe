"""The tables of a report, and what a reader should be warned of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from onestage.objective import COLUMNS, Method, term_rows
from onestage.report.directory import WATCHED, RunData
from onestage.spec import UserError, from_plain

WAITING = 0.3
"""Share of the time spent waiting for data from which a run is called slow to load."""
LOST = 0.02
"""How far below its best an accuracy may end."""
Row = tuple[str, ...]


def summary(runs: Sequence[RunData]) -> tuple[Row, list[Row]]:
    """Heads and rows: what each run is, how long it took and where it ended."""
    tasks = [task for task in WATCHED if any(run.keys(task) for run in runs)]
    heads = (
        "run",
        "recipe",
        "data",
        "steps",
        "time",
        "img/s",
        "image-text pairs",
        "last loss",
        *(f"{task}, last" for task in tasks),
    )
    return heads, [_summary(run, tasks) for run in runs]


def _summary(run: RunData, tasks: Sequence[str]) -> Row:
    steps = run.records[-1]["step"] if run.records else 0
    planned = run.recipe.get("steps")
    seconds = run.curve("seconds")
    speeds = [value for _, value in run.curve("img/s")]
    pairs = run.curve("texts")
    return (
        run.name,
        str(run.recipe.get("name", "-")),
        str(run.recipe.get("data", "-")),
        f"{steps:,} of {planned:,}" if isinstance(planned, int) and planned != steps else f"{steps:,}",
        time_of(seconds[-1][1]) if seconds else "-",
        f"{statistics.median(speeds):,.0f}" if speeds else "-",
        f"{pairs[-1][1]:,.0f}" if pairs else "-",
        *(_last(run, key, 4) for key in ("loss", *tasks)),
    )


def terms(runs: Sequence[RunData]) -> tuple[Row, list[Row]]:
    """Heads and rows: the terms of each run's method in the columns of M3I's table."""
    rows = [(run.name, *row[1:]) for run in runs for row in _term_rows(run)]
    return ("run", *COLUMNS[1:]), rows


def _term_rows(run: RunData) -> list[Row]:
    """Nothing where the recipe is of another version and its method cannot be read."""
    try:
        return term_rows(from_plain(Method, run.part("method")))
    except UserError:
        return []


def evaluations(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Every evaluation that was written into a run: its numbers as text, without those of chance in retrieval."""
    return [
        {
            "run": run.name,
            "task": found.get("task", "-"),
            "model": found.get("model", "-"),
            "data": found.get("data", "-"),
            "samples": found.get("samples", "-"),
            "metrics": [
                (name, f"{value:.4g}" if isinstance(value, (int, float)) else str(value))
                for name, value in found["metrics"].items()
                if not name.startswith("chance_")
            ],
        }
        for run in runs
        for found in run.evaluations
    ]


def differences(runs: Sequence[RunData]) -> tuple[Row, list[Row]]:
    """Heads and rows: the settings that are not the same in all runs."""
    plain = [dict(_leaves(run.recipe)) for run in runs]
    paths = dict.fromkeys(path for one in plain for path in one)
    rows = [(path, *(one.get(path, "-") for one in plain)) for path in paths]
    return ("setting", *(run.name for run in runs)), [row for row in rows if len(set(row[1:])) > 1]


def warnings(runs: Sequence[RunData]) -> list[str]:
    """What a reader should know before believing the rest."""
    return [f"{run.name}: {text}" for run in runs for text in _warnings(run)]


def time_of(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `5 h 02 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _warnings(run: RunData) -> Iterator[str]:
    if run.average:
        return
    if not run.records:
        yield "nothing was measured yet (no records in metrics.jsonl)"
        return
    planned, done = run.recipe.get("steps"), run.records[-1]["step"]
    if isinstance(planned, int) and done < planned:
        yield f"stopped at step {done:,} of {planned:,}; go on with onestage pretrain --resume"
    unmeasured = sum(record["loss"] is None for record in run.records if "loss" in record)
    if unmeasured:
        yield f"the loss was not finite in {unmeasured} of {len(run.curve('loss')) + unmeasured} records"
    loss = [value for _, value in run.curve("loss")]
    tenth = len(loss) // 10
    if tenth >= 2 and statistics.fmean(loss[-tenth:]) >= statistics.fmean(loss[:tenth]):
        yield "the loss did not fall: its last tenth is no lower than its first"
    waits = [value for _, value in run.curve("wait")]
    if waits and statistics.median(waits) > WAITING:
        yield f"{statistics.median(waits):.0%} of the time went into waiting for data; more workers may help"
    for task in run.keys(*WATCHED):
        points = run.curve(task)
        best = max(points, key=lambda point: point[1], default=(0.0, -math.inf))
        if points and points[-1][1] < best[1] - LOST:
            yield f"{task} ended at {points[-1][1]:.3f}, below its best of {best[1]:.3f} at step {best[0]:,.0f}"
    if run.damaged:
        yield f"{run.damaged:,} damaged samples were replaced by others (quarantine.jsonl names them)"


def _last(run: RunData, key: str, digits: int) -> str:
    points = run.curve(key)
    return f"{points[-1][1]:.{digits}f}" if points else "-"


def _leaves(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, "-" if node is None else str(node)
