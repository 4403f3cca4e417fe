"""What a run directory says of a run: its recipe, machine, metrics, evaluations and damaged samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.engine.metrics import read_metrics
from onestage.spec import UserError, read_yaml

MAX_JSON = 1 << 20
WATCHED = ("zero-shot", "retrieval", "knn", "linear", "classify")
"""Records of evaluations made while training, by task."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run directory says. What is missing in it is empty here."""

    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)
    """What `average.json` says, where the run is an average of two."""
    damaged: int = 0
    """Samples that were put into quarantine."""

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of one quantity, where it is a number."""
        return [(float(record["step"]), float(record[key])) for record in self.records if _number(record.get(key))]

    def keys(self, *prefixes: str) -> list[str]:
        """Quantities that were recorded under one of the names or prefixes (`loss/`), as they first appear."""
        found = dict.fromkeys(key for record in self.records for key in record)
        return [key for key in found if any(key == p or (p.endswith("/") and key.startswith(p)) for p in prefixes)]

    def part(self, *path: str) -> dict[str, Any]:
        """A mapping inside the recipe; empty where there is none."""
        node: Any = self.recipe
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}


def read_runs(runs: Sequence[Path]) -> list[RunData]:
    """The runs of a report, each by a name of its own.

    Raises:
        UserError: when a folder is not a run, or a file in it is damaged.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    return [_read(run, name) for run, name in zip(runs, names, strict=True)]


def _read(run: Path, name: str) -> RunData:
    if not (run / "run.yaml").is_file():
        raise UserError(f"{run}: not a run (there is no run.yaml in it)")
    recipe = read_yaml(run / "run.yaml")
    if not isinstance(recipe, dict):
        raise UserError(f"{run / 'run.yaml'}: expected the settings of a run, got {type(recipe).__name__}")
    metrics = run / "metrics.jsonl"
    evaluations = (_json(path) for path in sorted((run / "evaluations").glob("*.json")))
    return RunData(
        name=name,
        recipe=recipe,
        environment=_json(run / "env.json"),
        records=read_metrics(metrics) if metrics.is_file() else [],
        evaluations=[found for found in evaluations if isinstance(found.get("metrics"), dict)],
        average=_json(run / "average.json"),
        damaged=_lines(run / "quarantine.jsonl"),
    )


def _json(path: Path) -> dict[str, Any]:
    """A small JSON file; empty where it is missing.

    Raises:
        UserError: when it is damaged or too large.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for a report (at most {MAX_JSON})")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); mend or remove it") from None
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> int:
    """Lines of a file that may be long."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 16), b""))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
