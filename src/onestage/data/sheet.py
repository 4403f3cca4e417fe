"""A contact sheet: some samples of a source as one PNG, with texts, class, boxes and mask, or why they are bad."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onestage.data.survey import spread
from onestage.roles import VOID, BadSample, Sample, Source
from onestage.spec import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES, COLUMNS = 10, 5
WIDTH, LINES = 36, 4
"""Letters of a line under a picture, and how many lines."""
SIDE = 512
"""Pixels: larger pictures are shown by every n-th row and column."""
STYLE: dict[Any, Any] = {"font.size": 8, "text.parse_math": False, "font.family": "sans-serif"}


def contact_sheet(source: Source, file: Path) -> None:
    """Draw ten samples that are spread over a source.

    Raises:
        UserError: when the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    numbers = spread(len(source), SAMPLES)
    rows = -(-len(numbers) // COLUMNS)
    with rc_context(STYLE):
        figure = Figure(figsize=(2.6 * COLUMNS, 3.6 * rows), layout="constrained", facecolor="white")
        panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for axes in panels[len(numbers) :]:
            axes.set_axis_off()
        for axes, number in zip(panels, numbers, strict=False):
            _panel(axes, source, number)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, format="png", dpi=100)
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror})") from None


def _panel(axes: Axes, source: Source, number: int) -> None:
    key = str(number)
    try:
        sample = source[number]
        key = sample.key
        _draw(axes, source, sample, sample.picture.decode())
        told = _told(source, sample)
    except BadSample as error:
        told = f"bad: {error}"
    axes.set_title(key if len(key) <= WIDTH else f"...{key[3 - WIDTH :]}", fontweight="bold")
    under = [line for part in told.split("\n") for line in textwrap.wrap(part, WIDTH)]
    shown = under[:LINES] + ["..."] * (len(under) > LINES)
    axes.set_xlabel("\n".join(shown))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw(axes: Axes, source: Source, sample: Sample, pixels: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    height, width = pixels.shape[:2]
    step = max(-(-max(height, width) // SIDE), 1)
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(pixels[::step, ::step], extent=extent, interpolation="none" if step > 1 else "nearest")
    if sample.mask is not None:
        numbers = sample.mask.decode()[::step, ::step]
        shown = np.ma.masked_where(numbers == VOID, numbers % 20)
        axes.imshow(shown, extent=extent, cmap="tab20", vmin=0, vmax=19, alpha=0.4, interpolation="nearest")
    for place, (left, top, right, bottom) in enumerate(sample.boxes):
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="#dc2626", linewidth=1))
        if place < len(sample.box_labels) and source.box_classes:
            name = source.box_classes[sample.box_labels[place]]
            axes.text(left, top, name, color="white", backgroundcolor="#dc2626", fontsize=5, va="bottom", clip_on=True)


def _told(source: Source, sample: Sample) -> str:
    """The class and the first texts of a sample."""
    parts = [] if sample.label is None else [f"[{source.classes[sample.label]}]"]
    parts += sample.texts[:2]
    if len(sample.texts) > len(sample.texts[:2]):
        parts.append(f"({len(sample.texts)} captions)")
    return "\n".join(parts)
