"""MAE's decoder (arXiv:2111.06377, section 3): mask tokens where the encoder has no row, then a small ViT.

It sees the whole grid, so it guesses any cell. Every row is put where its cell is, so the order of the rows
does not matter, and an input that hides by mask tokens (a full grid of rows) is decoded just as well.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.layers.blocks import transformer_blocks
from onestage.ops import gather_rows, sines
from onestage.predictors.reach import Reach
from onestage.predictors.transformer import Transformer, TransformerPredictor
from onestage.spec import UserError, spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Decoder(Transformer):
    """A ViT of `depth` blocks over the whole grid."""

    positions: Literal["sincos", "sines"] = "sincos"
    """Fixed sines of row and column, or of the cell's number."""
    pooled: Literal["in front", "left out"] = "in front"
    """Whether the pooled row is decoded too; `left out` where an encoder has no class token."""
    kind: Literal["decoder"] = "decoder"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "grid" if self.pooled == "in front" else "cells"

    def build(self, width: int, out: int, grid: Grid) -> DecoderPredictor:
        """From encoder rows of `width` values on `grid` to target rows of `out` values."""
        return DecoderPredictor(self, width, out, grid)


@final
class DecoderPredictor(TransformerPredictor):
    """All cells, behind the pooled row."""

    def __init__(self, wanted: Decoder, width: int, out: int, grid: Grid) -> None:
        blocks = transformer_blocks(wanted.width, wanted.depth, wanted.heads, wanted.mlp_ratio)
        super().__init__(wanted, width, out, grid, blocks)
        self.first = 0 if wanted.pooled == "in front" else 1
        if wanted.positions == "sines":
            self.positions[1:] = sines(wanted.width, grid[0] * grid[1])

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; `POOLED` asks for the output of the pooled row.

        Raises:
            UserError: when tokens or target are not on the decoder's grid.
        """
        if (tokens.grid, wanted.grid) != (self.grid, self.grid):
            raise UserError(
                f"a decoder for {self.grid} cells was given rows of {tokens.grid} and asked for cells of "
                f"{wanted.grid}; choose the sizes and patches so that they agree"
            )
        rows = self.blocks((self._restored(tokens) + self.positions)[:, self.first :])
        return self.head(self.norm(gather_rows(rows, wanted.cell + 1 - self.first)))

    def _restored(self, tokens: Tokens) -> Float[Tensor, "b cells w"]:
        """The whole grid with mask tokens where no row is, behind the pooled row."""
        rows, pooled = self.embed(tokens.rows), self.embed(tokens.pooled)
        batch, _, width = rows.shape
        cells = self.mask.to(rows.dtype).expand(batch, self.grid[0] * self.grid[1], width)
        place = tokens.place.cell.unsqueeze(-1).expand(-1, -1, width)
        return torch.cat([pooled.unsqueeze(1), cells.scatter(1, place, rows)], dim=1)
