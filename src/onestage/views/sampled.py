"""Hiding a share of the cells that is drawn anew for each image.

iBOT (arXiv:2111.07832, sec. 4 and its loader): every other image hides nothing, the rest a uniform share. MAGE
(arXiv:2211.09117, sec. 3.1): a share from a normal cut to a range. Cells are replaced by mask tokens and not dropped,
so that shapes do not depend on the draw; targets of cells that are shown weigh nothing.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Literal, final

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from onestage.roles import Hide
from onestage.spec import spec
from onestage.types import Grid
from onestage.views.hiding import block_wise, fix_count, smallest_block

Share = Annotated[float, Field(ge=0, le=1)]


@final
@spec
class Sampled(Hide):
    """`int(share * cells)` cells, with a share in [low, high] for each image; one cell at least stays."""

    low: Share = 0.1
    high: Share = 0.5
    mean: float | None = None
    """Of the normal that the share is drawn from, cut to the range; empty: all shares of the range are as likely."""
    deviation: Annotated[float, Field(gt=0)] | None = None
    none: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of the images that hide nothing."""
    form: Literal["cells", "blocks"] = "cells"
    """Single cells, or BEiT's blocks topped up with single cells."""
    weigh: Literal["cells", "images"] = "cells"
    """Whether every hidden cell weighs the same, or every image that hides some."""
    kind: Literal["sampled"] = "sampled"

    def __post_init__(self) -> None:
        if self.low > self.high or self.high == 0:
            raise ValueError(f"low={self.low:g} high={self.high:g} is no range of shares; give low <= high, high > 0")
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation go together: give both for a normal, or leave both out")

    def count(self, grid: Grid) -> int:
        """How many cells are hidden at most."""
        return self._cells(self.high, grid)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        mask, shows_all = np.zeros(grid[0] * grid[1], dtype=bool), rng.random() < self.none
        count = self._cells(self.share(rng.random()), grid)
        if shows_all or count == 0:
            return mask
        if self.form == "blocks":
            return fix_count(rng, block_wise(rng, grid, count, smallest_block(16, grid)).ravel(), count)
        mask[rng.permutation(mask.size)[:count]] = True
        return mask

    def share(self, uniform: float) -> float:
        """The share that a number in [0, 1) stands for: the range's quantile."""
        if self.mean is None or self.deviation is None:
            return self.low + (self.high - self.low) * uniform
        normal = NormalDist(self.mean, self.deviation)
        first, last = normal.cdf(self.low), normal.cdf(self.high)
        quantile = first + (last - first) * uniform
        inside = normal.inv_cdf(quantile) if 0 < quantile < 1 else self.low  # far from the mean all is as good as even
        return min(max(inside, self.low), self.high)

    def _cells(self, share: float, grid: Grid) -> int:
        return min(int(share * grid[0] * grid[1]), grid[0] * grid[1] - 1)
