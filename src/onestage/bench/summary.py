"""Results of rows over seeds: means, spreads, and how far they are above an encoder drawn at random."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PROBES = ("linear", "knn", "dense", "zero_shot")
COSTS = ("seconds", "peak_mib")
FIRST = ("teacher", "codes", "categories")
"""What rows learn from."""
BASELINE = "random"


class Spread(NamedTuple):
    """Mean over seeds, and the standard deviation; None for one seed."""

    mean: float
    deviation: float | None


def spread(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each row: the `Spread` of its probes over seeds,
    means of its costs, and `above_random`: the difference of the means in units of the larger deviation."""
    rows = list(dict.fromkeys(line["row"] for line in lines))
    means = {row: _mean(row, [line for line in lines if line["row"] == row]) for row in rows}
    for mean in means.values():
        mean["above_random"] = {name: _above(mean[name], means[BASELINE][name]) for name in PROBES}
    return list(means.values())


def _mean(row: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"case": "table", "row": row, "seeds": [line["seed"] for line in lines]}
    for name in PROBES:
        values = [line[name] for line in lines if line[name] is not None]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        found[name] = Spread(statistics.fmean(values), deviation) if values else None
    for name in COSTS:
        values = [line[name] for line in lines if line[name] is not None]
        found[name] = round(statistics.fmean(values), 1) if values else None
    return found


def _above(row: Spread | None, baseline: Spread | None) -> float | None:
    if row is None or baseline is None or row.deviation is None or baseline.deviation is None:
        return None
    widest = max(row.deviation, baseline.deviation)
    return round((row.mean - baseline.mean) / widest, 1) if widest > 0 else None


def written(means: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] = ()) -> str:
    """The lines of `spread` as a Markdown table, the best linear probe first.

    Args:
        before: the lines of runs that rows learn from and that were trained first.
    """
    order = sorted(means, key=lambda mean: mean["linear"].mean, reverse=True)
    lines = ["| row | linear | kNN | dense, mIoU | zero-shot | seconds | peak MiB |", "|---|---|---|---|---|---|---|"]
    for mean in order:
        probes = " | ".join(_shown(mean[name]) for name in PROBES)
        costs = " | ".join("-" if mean[name] is None else f"{mean[name]:.0f}" for name in COSTS)
        lines.append(f"| {mean['row']} | {probes} | {costs} |")
    first = [f"{name} {line[name]} ({line['seconds']:.0f} s)" for line in before for name in FIRST if name in line]
    if first:
        lines += ["", f"Trained first, and in no row's own seconds: {', '.join(first)}."]
    return "\n".join(lines) + "\n"


def _shown(value: Spread | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.3f}" + (f" ({value.deviation:.3f})" if value.deviation is not None else "")
