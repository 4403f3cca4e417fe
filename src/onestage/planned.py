"""Everything random about one view of one sample, decided before its pixels are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Erased(NamedTuple):
    """A rectangle (top, left, height, width) of a view, in its own pixels, and the seed of the noise that fills it."""

    box: tuple[int, int, int, int]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything random about one view of one sample, decided before its pixels are decoded."""

    box: tuple[int, int, int, int]
    """(top, left, height, width) in pixels of the unflipped source."""
    flip: bool = False
    colour: tuple[tuple[str, float], ...] = ()
    """Colour operations in their order, each with its factor."""
    shrink: float = 1.0
    """How many times smaller than the source the pixels may be decoded for this view."""
    scale: float = 1.0
    """Size of the pixels that the view is cut from, as a share of the source's."""
    erased: Erased | None = None
    moment: float = 0.5
    """Of a clip: where its frames are taken, from as early (0) to as late (1) as they can be."""
