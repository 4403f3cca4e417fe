"""Relative position bias: what attention adds for where a key lies relative to its query, one table for all blocks.

BEiT (arXiv:2106.08254) shares the table between its blocks, and SimMIM and FD take that over. For each head there is
one number for every offset in rows and columns, and one each for class token to cell, cell to class token, and class
token to itself.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from onestage.types import Grid


@final
class RelativeBias(nn.Module):
    """What is added to the attention logits of one class token and the cells of a grid. Zero at first, as BEiT's."""

    index: Tensor

    def __init__(self, grid: Grid, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads))
        self.register_buffer("index", offsets(grid), persistent=False)

    def forward(self, cells: Int[Tensor, "b n"] | None) -> Float[Tensor, "b h m m"]:
        """The bias between the class token and these cells (None: all of them, the same for every sample: b is 1)."""
        index = self.index.unsqueeze(0)
        if cells is not None:
            kept = torch.cat([cells.new_zeros(cells.shape[0], 1), cells + 1], dim=1)
            index = self.index[kept.unsqueeze(2), kept.unsqueeze(1)]
        return self.table[index].permute(0, 3, 1, 2)


def offsets(grid: Grid) -> Int[Tensor, "m m"]:
    """The table's entry for each query (row) and key (column); number 0 is the class token, cell c is number c + 1."""
    rows, columns = grid
    row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
    down, right = row[:, None] - row, column[:, None] - column
    count = (2 * rows - 1) * (2 * columns - 1)
    index = torch.empty(1 + rows * columns, 1 + rows * columns, dtype=torch.long)
    index[1:, 1:] = (down + rows - 1) * (2 * columns - 1) + right + columns - 1
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index
