"""The report of a run: one self-contained HTML file made from what the run directory holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestage.report import tables
from onestage.report.averages import average_figures
from onestage.report.chains import chain_figures
from onestage.report.directory import WATCHED, RunData, read_runs
from onestage.report.figures import Curve, coverage_maps, curves, overlay, png
from onestage.spec import UserError, to_yaml
from onestage.storage import write_atomic
from onestage.types import Grid
from onestage.views import Block, BlockReversed, coverage

DRAWS = 2000
"""Masks drawn for the figure of coverage."""
VALIDATION = "val/loss"
"""What a run calls the loss on its validation data."""
PAPER_GRID = (14, 14)
"""Where the recipe leaves the grid to the teacher: that of a ViT-B/16."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures prepared for a report, each uint8 (h, w, 3): what is true of it, its nearest captions, and a heat
    map of `words` over it."""

    images: Sequence[np.ndarray]
    truths: Sequence[str]
    captions: Sequence[Sequence[str]]
    words: Sequence[str]
    heat_maps: Sequence[np.ndarray]


def write_report(
    runs: Sequence[Path],
    out: Path,
    pictures: Pictures | None = None,
    chains: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    single: Sequence[Path] = (),
) -> Path:
    """Write the report of a run, or of several in the same axes.

    Args:
        runs: run directories, the first being the one the pictures are of.
        pictures: pictures of the first run, or None.
        chains: the finished stages of each chain among them, for a figure of their probes.
        single: those of the runs that are no stage of a chain.

    Raises:
        UserError: when a folder is not a run, a file of it is damaged, or the report cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    read = read_runs(runs)
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    text = page.get_template("template.html").render(
        title=" and ".join(run.name for run in read),
        warnings=tables.warnings(read),
        summary=tables.summary(read),
        terms=tables.terms(read),
        evaluations=tables.evaluations(read),
        differences=tables.differences(read),
        figures=average_figures(read) + chain_figures(chains or {}, read_runs(single)) + figures(read),
        pictures=cards(pictures) if pictures is not None else [],
        runs=[
            {"name": run.name, "recipe": to_yaml(run.recipe), "environment": to_yaml(run.environment)} for run in read
        ],
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None
    return out


def figures(runs: Sequence[RunData]) -> list[dict[str, str]]:
    """Losses, accuracies, rates and the coverage of hiding; what was not measured is left out."""
    losses = _panels(runs, "loss", "loss/")
    for title, series in losses.items():
        key = VALIDATION if title == "loss" else f"{VALIDATION}/{title}"
        series |= {f"{run.name}, validation": run.curve(key) for run in runs if run.curve(key)}
    if len(losses) == 2:  # one term: it is the sum
        losses.pop(next(title for title in losses if title != "loss"))
    measured = [
        ("Loss of each term", "", losses),
        ("Accuracy while training", "On the validation data.", _panels(runs, *WATCHED)),
        ("Learning rate and speed", "", _panels(runs, "lr", "lr/", "img/s")),
    ]
    made = [{"title": title, "note": note, "svg": curves(panels)} for title, note, panels in measured if panels]
    return made + [_coverage(run) for run in runs if _hidden(run) is not None]


def cards(pictures: Pictures) -> list[dict[str, Any]]:
    """Pictures ready for the page."""
    rows = zip(pictures.images, pictures.heat_maps, pictures.truths, pictures.captions, pictures.words, strict=True)
    return [
        {
            "image": png(image),
            "heat": png(overlay(image, heat)),
            "low": f"{float(heat.min()):.2f}",
            "high": f"{float(heat.max()):.2f}",
            "truth": truth,
            "captions": list(captions),
            "word": word,
        }
        for image, heat, truth, captions, word in rows
    ]


def _panels(runs: Sequence[RunData], *keys: str) -> dict[str, dict[str, Curve]]:
    """The quantities of these names or prefixes, with the curve of each run that measured it."""
    names = dict.fromkeys(key for run in runs for key in run.keys(*keys))
    panels: dict[str, dict[str, Curve]] = {
        name: {run.name: run.curve(name) for run in runs if run.curve(name)} for name in names
    }
    return {name.removeprefix("loss/"): series for name, series in panels.items() if series}


def _coverage(run: RunData) -> dict[str, str]:
    """Block against reversed block at the run's own share and grid."""
    hidden = _hidden(run)
    assert hidden is not None, "asked for runs that hide"
    kind, share, grid = hidden
    maps = {
        "block-wise": coverage(Block(ratio=share), grid, DRAWS, 0),
        "reversed block-wise": coverage(BlockReversed(ratio=share), grid, DRAWS, 0),
    }
    note = (
        f"{run.name} hides {share:.0%} of the cells ({kind.replace('_', ' ')}). "
        f"Both figures: {DRAWS:,} draws of that share on {grid[0]} x {grid[1]} cells."
    )
    return {"title": "How often each cell is hidden", "note": note, "svg": coverage_maps(maps)}


def _hidden(run: RunData) -> tuple[str, float, Grid] | None:
    """How the first input that hides does it: the kind, the share and the grid."""
    for asked in run.part("method", "inputs").values():
        for part in asked.get("parts", {}).values():
            hide = part.get("hide")
            if hide:
                model = run.part("models", str(asked.get("encoder")))
                share = hide.get("ratio") or hide.get("cells", 0) / hide.get("of", 1)
                return str(hide.get("kind")), float(share), _grid(model)
    return None


def _grid(model: Mapping[str, Any]) -> Grid:
    size, patch = model.get("size"), model.get("patch")
    if isinstance(size, int) and isinstance(patch, int) and size >= patch > 0:
        return size // patch, size // patch
    return PAPER_GRID
