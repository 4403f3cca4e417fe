"""Outlines in COCO's three forms as masks: polygons, run lengths, and run lengths written as a string.

Run lengths alternate between outside and inside, begin outside, and go down the columns. In a string each is a number
of 5-bit digits, lowest first, the bit 0x20 saying that more follow, 48 added to make it a letter; from the fourth on it
is the difference to the run two before (Lin et al., "Microsoft COCO", arXiv:1405.0312; the format is that of the
`mask` interface). Polygons are drawn as there too, five times as fine, so that areas agree to the pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Bool

from onestage.data.decode import MAX_PIXELS
from onestage.sample import BadSample, Instances

FINE = 5
"""How many times as fine as the pixels a polygon's edges are followed."""
FAR = 4
"""So many times the longer side a corner may lie outside: what lies farther is a mistake, and would take memory."""
MAX_MASKS = 1 << 31
"""Pixels of all masks of one picture together."""


@final
class Outlines(Instances):
    """The outlines of one picture, each as COCO writes a `segmentation`.

    Args:
        size: (width, height) of the picture they were drawn on.
    """

    def __init__(self, outlines: Sequence[Any], size: tuple[int, int]) -> None:
        self.outlines, self.size = outlines, size

    def decode(self) -> np.ndarray:
        """bool (outlines, height, width).

        Raises:
            BadSample: when one is in none of the three forms, or does not fit the picture.
        """
        width, height = self.size
        if width * height > MAX_PIXELS or width * height * len(self.outlines) > MAX_MASKS:
            raise BadSample(f"{len(self.outlines)} masks of {width} x {height} pixels are too many")
        masks = np.zeros((len(self.outlines), height, width), dtype=bool)
        for mask, outline in zip(masks, self.outlines, strict=True):
            mask[:] = inside(outline, height, width)
        return masks


def inside(outline: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Where an outline's thing is.

    Raises:
        BadSample: when it is in none of the three forms, or does not fit the size.
    """
    if isinstance(outline, list):
        columns = np.zeros((width, height), dtype=bool)
        for polygon in outline:
            columns |= _columns(_turns(_corners(polygon, height, width), height, width), height, width)
        return columns.T
    if not isinstance(outline, dict) or outline.get("size") != [height, width]:
        told = outline.get("size") if isinstance(outline, dict) else outline
        raise BadSample(f"an outline is of size {told!r:.60}, but the picture's is [{height}, {width}]")
    counts = outline.get("counts")
    runs = read_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise BadSample(f"an outline's counts are {counts!r:.60}; expected whole numbers, or the string of them")
    if sum(runs) != height * width:
        raise BadSample(f"an outline's runs are {sum(runs)} pixels, but the picture has {height * width}")
    return _columns(np.cumsum(runs), height, width).T


def read_runs(letters: str) -> list[int]:
    """Run lengths from their string.

    Raises:
        BadSample: when it has a letter that is no digit, or ends in the middle of a number.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in letters:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or shift > 40:
            raise BadSample(f"an outline's counts have {letter!r}, which does not belong there")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:  # the highest bit of the last digit is the sign
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise BadSample("an outline's counts end in the middle of a number")
    return runs


def _corners(polygon: Any, height: int, width: int) -> np.ndarray:
    """Corners of a polygon, float64 (corners, 2)."""
    try:
        corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise BadSample(f"a polygon is {polygon!r:.60}; expected numbers x, y, x, y and so on") from None
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise BadSample(f"a polygon has {len(corners)} corners, or one that is no number")
    if np.abs(corners).max() > FAR * max(height, width):
        raise BadSample(f"a polygon leads to {corners.flat[np.abs(corners).argmax()]:g}, far out of the picture")
    return corners


def _columns(turns: np.ndarray, height: int, width: int) -> Bool[np.ndarray, "width height"]:
    """The pixels, column by column, that stand behind an odd number of turns."""
    runs = np.diff(turns, prepend=0, append=height * width)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)


def _turns(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where, going down the columns, the inside of a polygon begins and ends: its edges cross the columns' middles."""
    across, down = _edges((FINE * corners + 0.5).astype(np.int64))
    crossed = np.flatnonzero(across[1:] != across[:-1])
    before, after = across[crossed], across[crossed + 1]
    column = (np.where(after < before, after, after - 1) + 0.5) / FINE - 0.5
    row = (np.minimum(down[crossed], down[crossed + 1]) + 0.5) / FINE - 0.5
    kept = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    return np.sort(column[kept].astype(np.int64) * height + np.ceil(np.clip(row[kept], 0, height)).astype(np.int64))


def _edges(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a closed polygon, one for each step along an edge's longer axis, its ends included."""
    spans = np.roll(corners, -1, axis=0) - corners
    longer = (np.abs(spans[:, 1]) > np.abs(spans[:, 0])).astype(np.int64)
    rows = np.arange(len(spans))
    length, side = spans[rows, longer], spans[rows, 1 - longer]
    slope = np.divide(side, length, out=np.zeros(len(spans)), where=length != 0)
    steps = np.abs(length) + 1
    edge = np.repeat(rows, steps)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)
    # Always counted from the same end of an edge, so that two neighbours share it.
    back = length < 0
    low = np.where(back[:, None], corners + spans, corners)
    way = np.where(back[edge], -length[edge] - step, step)
    along = low[rows, longer][edge] + way
    aside = (low[rows, 1 - longer][edge] + slope[edge] * way + 0.5).astype(np.int64)
    upright = longer[edge] == 1
    return np.where(upright, aside, along), np.where(upright, along, aside)
