"""MAE's decoder (arXiv:2111.06377, section 3): mask tokens where the encoder has no row, then a small ViT.

It sees the whole grid, so it guesses any cell. Every row is put where its cell is, so the order of the rows
does not matter, and an input that hides by mask tokens (a full grid of rows) is decoded just as well.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.blocks import transformer_blocks, xavier
from onestage.ops import gather_rows, sincos_2d
from onestage.predictors.reach import Reach
from onestage.predictors.transformer import Transformer
from onestage.roles import Predictor
from onestage.spec import UserError, spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Decoder(Transformer):
    """A ViT of `depth` blocks over the whole grid."""

    kind: Literal["decoder"] = "decoder"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "grid"

    def build(self, width: int, out: int, grid: Grid) -> DecoderPredictor:
        """From encoder rows of `width` values on `grid` to target rows of `out` values."""
        return DecoderPredictor(self, width, out, grid)


@final
class DecoderPredictor(Predictor):
    """The pooled row stands in front with position zero; the positions are neither trained nor saved."""

    positions: Tensor

    def __init__(self, wanted: Decoder, width: int, out: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(width, wanted.width)
        self.mask = nn.Parameter(torch.empty(wanted.width))
        positions = torch.cat([torch.zeros(1, wanted.width), sincos_2d(wanted.width, grid)])
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = transformer_blocks(wanted.width, wanted.depth, wanted.heads, wanted.mlp_ratio)
        self.norm = nn.LayerNorm(wanted.width, eps=1e-6)
        self.head = nn.Linear(wanted.width, out)
        nn.init.normal_(self.mask, std=0.02)
        self.apply(xavier)

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
        rows = self.blocks(self._restored(tokens) + self.positions)
        # The pooled row is row 0 and POOLED is -1, so every cell stands at its number plus one.
        return self.head(self.norm(gather_rows(rows, wanted.cell + 1)))

    def _restored(self, tokens: Tokens) -> Float[Tensor, "b cells w"]:
        """The whole grid with mask tokens where no row is, behind the pooled row."""
        rows, pooled = self.embed(tokens.rows), self.embed(tokens.pooled)
        batch, _, width = rows.shape
        cells = self.mask.to(rows.dtype).expand(batch, self.grid[0] * self.grid[1], width)
        place = tokens.place.cell.unsqueeze(-1).expand(-1, -1, width)
        return torch.cat([pooled.unsqueeze(1), cells.scatter(1, place, rows)], dim=1)
