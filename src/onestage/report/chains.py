"""The figure of a chain: what probes found after each stage, beside runs of a single stage.

The slides of M3I (arXiv:2211.09807) argue that stages forget: a probe that falls from one stage to the next shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onestage.report.directory import RunData
from onestage.report.figures import Curve, curves

PROBES = {"linear": "linear probe", "knn": "kNN", "dense": "dense probe, mIoU", "zero_shot": "zero-shot"}
TASKS = {"linear": ("linear", "top1"), "knn": ("knn", "top1"), "dense": ("dense-probe", "miou")}
"""The evaluation of a run, and its metric, that says the same as a probe."""


def chain_figures(chains: Mapping[str, Sequence[Mapping[str, Any]]], runs: Sequence[RunData]) -> list[dict[str, str]]:
    """One figure of all chains; a run of a single stage that was evaluated is a level line across it.

    Args:
        chains: for each chain, the finished stages of its `chain.json`.
        runs: beside them.
    """
    panels: dict[str, dict[str, Curve]] = {}
    longest = max((len(stages) for stages in chains.values()), default=0)
    for probe, title in PROBES.items():
        series = {name: _points(stages, probe) for name, stages in chains.items()}
        for run in runs:
            value = _evaluated(run, probe)
            series[run.name] = [] if value is None else [(1.0, value), (float(longest), value)]
        panels[title] = {name: points for name, points in series.items() if points}
    panels = {title: series for title, series in panels.items() if any(name in series for name in chains)}
    if not panels:
        return []
    told = [f"{name}: {', '.join(_named(stages))}." for name, stages in chains.items()]
    missing = [run.name for run in runs if all(_evaluated(run, probe) is None for probe in TASKS)]
    if missing:
        told.append(
            f"{', '.join(missing)}: not evaluated; for its line: onestage evaluate linear RUN --data SRC "
            "--json RUN/evaluations/linear.json, and so knn and dense-probe."
        )
    return [{"title": "Probes after each stage", "note": " ".join(told), "svg": curves(panels, "stage")}]


def _points(stages: Sequence[Mapping[str, Any]], probe: str) -> list[tuple[float, float]]:
    found = ((float(number), (stage["probes"] or {}).get(probe)) for number, stage in enumerate(stages, start=1))
    return [(number, float(value)) for number, value in found if value is not None]


def _named(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{number} {stage['stage']} ({stage['samples']:,} samples)" for number, stage in enumerate(stages, 1)]


def _evaluated(run: RunData, probe: str) -> float | None:
    task, metric = TASKS.get(probe, ("zero-shot", "top1"))
    found = [evaluation["metrics"].get(metric) for evaluation in run.evaluations if evaluation.get("task") == task]
    return float(found[0]) if found and found[0] is not None else None
