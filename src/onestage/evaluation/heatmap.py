"""Where in an image a text is: cosines of its dense joint tokens with the text's embedding."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.types import Grid


def heat_map(rows: Float[Tensor, "g d"], text: Float[Tensor, " d"], grid: Grid) -> Float[Tensor, "h w"]:
    """Cosine of each cell with a text.

    Args:
        rows: an image's tokens in the joint space, one a cell, row by row; not normalised.
        text: the text's embedding in the same space; not normalised.
        grid: (rows, columns).
    """
    if rows.shape[0] != grid[0] * grid[1]:
        raise ValueError(f"a grid of {grid[0]} x {grid[1]} cells needs as many rows, not {rows.shape[0]}")
    cells, word = functional.normalize(rows.float(), dim=-1), functional.normalize(text.float(), dim=-1)
    return (cells @ word).reshape(grid)
