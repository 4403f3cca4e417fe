"""The figure of an average of two runs: what evaluations found along the line between them.

WiSE-FT (arXiv:2109.01903, figure 1): between its ends the line may be better than both, most of all on shifted data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onestage.report.directory import RunData
from onestage.report.figures import Curve, curves


def average_figures(runs: Sequence[RunData]) -> list[dict[str, str]]:
    """A figure for each run that is an average with a curve: a panel a task, a line a source of data."""
    return [_figure(run) for run in runs if run.average.get("curve")]


def _figure(run: RunData) -> dict[str, str]:
    panels: dict[str, dict[str, Curve]] = {}
    found: list[dict[str, Any]] = run.average["curve"]
    for point in found:
        metric, value = next(iter(point["metrics"].items()))
        series = panels.setdefault(f"{point['task']}, {metric}", {})
        series[point["data"]] = [*series.get(point["data"], ()), (float(point["alpha"]), float(value))]
    ends = f"alpha 0 is {run.average['first']}, alpha 1 is {run.average['second']}"
    note = f"{run.name} holds the weights at alpha {run.average['alpha']:g}; {ends}."
    return {"title": "Between two runs", "note": note, "svg": curves(panels, "alpha")}
