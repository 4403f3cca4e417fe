"""Figures as inline SVG and pictures as base64 PNG, so that a report is one file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 500
"""Points a curve has at most."""
MARKED = 25
"""A curve of fewer points shows each of them."""
COLOURS = ("#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#0891b2")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "onestage",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#71717a",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
}
"""Text stays text, equal figures are equal files, and a dollar in a run's name is no formula."""

Curve = Sequence[tuple[float, float]]


def curves(panels: Mapping[str, Mapping[str, Curve]], x_label: str = "step") -> str:
    """One pair of axes a quantity, in each of them a line a run; a legend where there are several runs.

    Args:
        panels: for each title, the points of each run. Runs without points are left out.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with _style():
        figure = Figure(figsize=(4.6 * columns, 2.6 * rows), layout="constrained", facecolor="white")
        grid = figure.subplots(rows, columns, squeeze=False)
        lines = {}
        for axes, (title, series) in zip(grid.flat, panels.items(), strict=False):
            for name, points in series.items():
                kept = thin(points)
                (lines[name],) = axes.plot(
                    [x for x, _ in kept],
                    [y for _, y in kept],
                    color=COLOURS[names.index(name) % len(COLOURS)],
                    linestyle=("-", "--", ":")[names.index(name) // len(COLOURS) % 3],
                    linewidth=1.4,
                    marker="o" if len(kept) < MARKED else None,
                    markersize=3,
                )
            axes.set_title(title, loc="left")
            axes.set_xlabel(x_label)
            axes.grid(alpha=0.25)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        if len(names) > 1:
            # Labels are given here, since matplotlib hides those that begin with an underscore.
            figure.legend(lines.values(), lines.keys(), loc="outside lower left", ncols=4, frameon=False)
        return _svg(figure)


def coverage_maps(maps: Mapping[str, Float[np.ndarray, "h w"]]) -> str:
    """How often each cell is hidden, side by side on one scale from 0 (UTA, arXiv:2405.19009, figure 3).

    Args:
        maps: probabilities by title.
    """
    with _style():
        return _svg(_coverage(maps))


def coverage_figure(maps: Mapping[str, Float[np.ndarray, "h w"]], path: Path) -> None:
    """The picture of `coverage_maps` as a file, in the format that its name ends in."""
    with _style():
        _coverage(maps).savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _coverage(maps: Mapping[str, Float[np.ndarray, "h w"]]) -> Figure:
    from matplotlib.figure import Figure

    top = max(float(values.max()) for values in maps.values())
    figure = Figure(figsize=(2.7 * len(maps) + 0.9, 2.9), layout="constrained", facecolor="white")
    grid = figure.subplots(1, len(maps), squeeze=False)
    shown = [
        axes.imshow(values, vmin=0, vmax=top, cmap="viridis")
        for axes, values in zip(grid.flat, maps.values(), strict=True)
    ]
    for axes, (title, values) in zip(grid.flat, maps.items(), strict=True):
        axes.set_title(f"{title}\n{values.min():.2f} to {values.max():.2f}", loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown[0], ax=list(grid.flat), shrink=0.9, label="probability of being hidden")
    return figure


def thin(points: Curve) -> Curve:
    """At most `POINTS` points of a curve at even distances, the first and the last among them."""
    if len(points) <= POINTS:
        return points
    return [points[round(number * (len(points) - 1) / (POINTS - 1))] for number in range(POINTS)]


def png(pixels: UInt8[np.ndarray, "h w 3"], side: int = 160) -> str:
    """A picture as a data address, enlarged without smoothing by a whole factor where it is small."""
    factor = max(side // pixels.shape[1], 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def overlay(pixels: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "gh gw"]) -> UInt8[np.ndarray, "h w 3"]:
    """A heat map over a grey picture, from the map's own least (dark) to its greatest value (bright)."""
    from matplotlib import colormaps

    low, high = float(heat.min()), float(heat.max())
    unit = ((heat - low) / max(high - low, 1e-6)).astype(np.float32)
    size = (pixels.shape[1], pixels.shape[0])
    smooth = np.asarray(Image.fromarray(unit).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colour = colormaps["inferno"](smooth)[..., :3] * 255
    grey = pixels.mean(axis=-1, keepdims=True)
    return (0.35 * grey + 0.65 * colour).clip(0, 255).astype(np.uint8)


def _style() -> Any:
    from matplotlib import rc_context

    return rc_context(STYLE)


def _svg(figure: Figure) -> str:
    """The figure alone: without the head of an XML file, and without names of formats that a page does not need."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
