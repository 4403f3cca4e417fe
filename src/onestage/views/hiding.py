"""Which cells of a grid an input withholds. Every draw hides the same number: shapes are static.

Random: MAE (arXiv:2111.06377, section 3). Block-wise: BEiT (arXiv:2106.08254, algorithm 1), topped up
with single cells to an exact count as in SiameseIM (arXiv:2206.01204). Reversed block-wise: UTA
(arXiv:2405.19009). Units: SimMIM (arXiv:2111.09886, section 3.2). Tubes: VideoMAE (arXiv:2203.12602, section 3.3).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from onestage.roles import Hide
from onestage.spec import UserError, spec
from onestage.types import Grid

Ratio = Annotated[float, Field(ge=0, lt=1)]
Cells = Annotated[int, Field(ge=1)]
Aspect = Annotated[float, Field(gt=0, le=1)]

_TRIES = 10
_PUBLISHED_CELLS = 14 * 14
"""Cells of the 14 x 14 grid for which the published smallest block (16 cells) is meant."""


@final
@spec
class Random(Hide):
    """Cells hidden uniformly at random; `int(cells * (1 - ratio))` stay (MAE's rounding), at least one."""

    ratio: Ratio = 0.75
    kind: Literal["random"] = "random"

    def count(self, grid: Grid) -> int:
        """How many cells are hidden."""
        cells = grid[0] * grid[1]
        return cells - max(1, int(cells * (1 - self.ratio)))

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        mask = np.zeros(grid[0] * grid[1], dtype=bool)
        mask[rng.permutation(mask.size)[: self.count(grid)]] = True
        return mask


@final
@spec
class Block(Hide):
    """Rectangular blocks, and a few single cells where they fall short of `round(ratio * cells)`.

    Give either `ratio`, or `cells` of a reference grid as papers do (`cells=75, of=196`). The centre is
    hidden far more often than the corners, since blocks lie wholly inside the grid.
    """

    ratio: Ratio | None = None
    cells: Cells | None = None
    """How many cells are hidden on a grid of `of` cells; the same share of them on any other grid."""
    of: Cells | None = None
    min_block: Cells = 16
    """Smallest area drawn for a block, in cells; on grids smaller than 14 x 14 it shrinks with the grid."""
    aspect: Aspect = 0.3
    """Least aspect (height / width) of a block; the greatest is its inverse."""
    kind: Literal["block"] = "block"

    def __post_init__(self) -> None:
        if (self.cells is None) != (self.of is None) or (self.ratio is None) == (self.cells is None):
            raise ValueError("give either ratio (ratio=0.4), or cells and of together (cells=75, of=196)")
        if self.cells is not None and self.of is not None and self.cells >= self.of:
            raise ValueError(f"cells={self.cells} of={self.of} leaves nothing visible; give fewer cells")

    def count(self, grid: Grid) -> int:
        """How many cells are hidden."""
        if self.cells is not None and self.of is not None:
            return _nearest(self.cells * grid[0] * grid[1] / self.of, grid)
        return _nearest((self.ratio or 0.0) * grid[0] * grid[1], grid)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        count = self.count(grid)
        mask = block_wise(rng, grid, count, smallest_block(self.min_block, grid), None, self.aspect)
        return fix_count(rng, mask.ravel(), count)


@final
@spec
class BlockReversed(Hide):
    """Blocks are hidden or, for every second image on average, blocks are all that is visible (Block-R).

    `round(ratio * cells)` cells are hidden either way. This takes most of the centre bias of `Block`
    away. The paper does not say what becomes of the count when a mask is reversed; a constant count is the
    reading that agrees with its cost column.
    """

    ratio: Ratio = 0.4
    min_block: Cells = 16
    """Smallest area drawn for a block, in cells; on grids smaller than 14 x 14 it shrinks with the grid."""
    aspect: Aspect = 0.3
    """Least aspect (height / width) of a block; the greatest is its inverse."""
    kind: Literal["block_reversed"] = "block_reversed"

    def count(self, grid: Grid) -> int:
        """How many cells are hidden."""
        return _nearest(self.ratio * grid[0] * grid[1], grid)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        count, least = self.count(grid), smallest_block(self.min_block, grid)
        if rng.random() < 0.5:
            mask = ~block_wise(rng, grid, grid[0] * grid[1] - count, least, None, self.aspect)
        else:
            mask = block_wise(rng, grid, count, least, None, self.aspect)
        return fix_count(rng, mask.ravel(), count)


@final
@spec
class Units(Hide):
    """Whole squares of `side` x `side` cells hidden uniformly at random; `ceil(ratio * units)` of them."""

    ratio: Ratio = 0.6
    side: Cells = 2
    """Of a unit, in cells: SimMIM's units of 32 pixels are 2 cells of a ViT with patches of 16, and 1 cell of the last
    stage of a Swin."""
    kind: Literal["units"] = "units"

    def count(self, grid: Grid) -> int:
        """How many cells are hidden.

        Raises:
            UserError: when units do not fill the grid.
        """
        rows, columns = self._units(grid)
        return min(math.ceil(self.ratio * rows * columns), rows * columns - 1) * self.side**2

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        rows, columns = self._units(grid)
        mask = np.zeros(rows * columns, dtype=bool)
        mask[rng.permutation(mask.size)[: self.count(grid) // self.side**2]] = True
        return np.kron(mask.reshape(rows, columns), np.ones((self.side, self.side), dtype=bool)).ravel()

    def _units(self, grid: Grid) -> Grid:
        if grid[0] % self.side or grid[1] % self.side:
            raise UserError(
                f"hide: units of {self.side} x {self.side} cells do not fill a grid of {grid[0]} x {grid[1]}; choose a "
                "side that divides it, or another image size"
            )
        return grid[0] // self.side, grid[1] // self.side


@final
@spec
class Tube(Hide):
    """The same cells in every frame of a clip, uniformly at random; `int(ratio * cells)` of each, and one at least is
    shown. What is hidden shows in no other frame where nothing moves."""

    ratio: Ratio = 0.9
    kind: Literal["tube"] = "tube"

    def count(self, grid: Grid) -> int:
        """How many cells are hidden, in all frames together: squares of the grid, one below another."""
        return grid[0] // grid[1] * min(int(self.ratio * grid[1] ** 2), grid[1] ** 2 - 1)

    def draw(self, rng: np.random.Generator, grid: Grid) -> Bool[np.ndarray, " g"]:
        """True where hidden."""
        frames, mask = grid[0] // grid[1], np.zeros(grid[1] ** 2, dtype=bool)
        mask[rng.permutation(mask.size)[: self.count(grid) // frames]] = True
        return np.tile(mask, frames)


def block_wise(
    rng: np.random.Generator,
    grid: Grid,
    target: int,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: float = 0.3,
) -> Bool[np.ndarray, "h w"]:
    """BEiT's blocks, True where hidden: never more than `target` cells, and sometimes a few less.

    Blocks are placed until the target is met or ten attempts in a row fail. Areas are in cells; without
    `max_block` a block may be as large as what is still missing.
    """
    mask = np.zeros(grid, dtype=bool)
    missing = target
    while missing > 0:
        cap = missing if max_block is None else min(missing, max_block)
        placed = _place_block(rng, mask, min_block, cap, -math.log(aspect))
        if placed == 0:
            break
        missing -= placed
    return mask


def _place_block(rng: np.random.Generator, mask: Bool[np.ndarray, "h w"], least: int, cap: int, reach: float) -> int:
    """Hide one block that adds between 1 and `cap` cells, and say how many; 0 when ten attempts fail.

    When `least` is above `cap`, areas lie between the two, which is how the last small blocks come about.
    """
    rows, columns = mask.shape
    for _ in range(_TRIES):
        area = least + (cap - least) * rng.random()
        aspect = math.exp(reach * (2 * rng.random() - 1))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (height < rows and width < columns):  # strict: a block never spans a whole side
            continue
        top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        block = mask[top : top + height, left : left + width]
        added = block.size - int(np.count_nonzero(block))
        if 0 < added <= cap:
            block[:] = True
            return added
    return 0


def fix_count(rng: np.random.Generator, mask: Bool[np.ndarray, " g"], count: int) -> Bool[np.ndarray, " g"]:
    """The mask with exactly `count` cells hidden: random cells are hidden, or shown, one by one."""
    missing = count - int(np.count_nonzero(mask))
    if missing == 0:
        return mask
    candidates = np.flatnonzero(~mask if missing > 0 else mask)
    fixed = mask.copy()
    fixed[rng.choice(candidates, abs(missing), replace=False)] = missing > 0
    return fixed


def smallest_block(published: int, grid: Grid) -> int:
    """The smallest block for a grid: as published from 14 x 14 up, in proportion below, at least one cell."""
    return max(1, min(published, round(published * grid[0] * grid[1] / _PUBLISHED_CELLS)))


def coverage(hide: Hide, grid: Grid, draws: int, seed: int) -> Float[np.ndarray, "h w"]:
    """How often each cell is hidden, as a share of `draws` draws (figure 3 of UTA)."""
    rng = np.random.Generator(np.random.Philox(seed))
    hits = np.zeros(grid[0] * grid[1])
    for _ in range(draws):
        hits += hide.draw(rng, grid)
    return hits.reshape(grid) / draws


def _nearest(cells: float, grid: Grid) -> int:
    """The nearest whole number of hidden cells that leaves one to see."""
    return min(round(cells), grid[0] * grid[1] - 1)
