"""MILAN's prompting decoder (arXiv:2208.06049, sec. 3.2): only the rows of hidden cells are decoded.

The encoder's rows are embedded once and stay as they are: in every block the hidden rows are the queries, and keys and
values are the encoder's rows, not normed again, with the hidden rows as they now are (MILAN's code).
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from onestage.ops import gather_rows, withheld
from onestage.predictors.reach import Reach
from onestage.predictors.transformer import Transformer, TransformerPredictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Prompting(Transformer):
    """`depth` blocks in which hidden rows read the encoder's."""

    kind: Literal["prompting"] = "prompting"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "grid"

    def build(self, width: int, out: int, grid: Grid) -> PromptingPredictor:
        """From encoder rows of `width` values on `grid` to target rows of `out` values."""
        return PromptingPredictor(self, width, out, grid)


@final
class PromptingPredictor(TransformerPredictor):
    """Rows of the encoder, which stay, and of hidden cells, which read them."""

    blocks: nn.ModuleList

    def __init__(self, wanted: Prompting, width: int, out: int, grid: Grid) -> None:
        blocks = nn.ModuleList(_Prompted(wanted) for _ in range(wanted.depth))
        super().__init__(wanted, width, out, grid, blocks)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell: of the encoder's own rows, and of hidden ones after the blocks."""
        cells = tokens.place.cell
        batch, cells_all = cells.shape[0], self.grid[0] * self.grid[1]
        given = self.embed(torch.cat([tokens.pooled.unsqueeze(1), tokens.rows], dim=1))
        given = given + torch.cat([self.positions[:1].expand(batch, 1, -1), self.positions[cells + 1]], dim=1)
        seen = torch.zeros(batch, cells_all, dtype=torch.bool, device=cells.device).scatter(1, cells, True)
        hidden = withheld(~seen, cells_all - cells.shape[1])
        rows = self.mask + self.positions[hidden + 1]
        for block in self.blocks:
            rows = block(rows, given)
        whole = torch.cat([given, rows.to(given.dtype)], dim=1)
        place = torch.cat([cells.new_zeros(batch, 1), cells + 1, hidden + 1], dim=1).argsort(dim=1)
        return self.head(self.norm(gather_rows(whole, place.gather(1, wanted.cell + 1))))


@final
class _Prompted(nn.Module):
    """One pre-norm block: attention of the hidden rows over everything, and a feed-forward of theirs."""

    def __init__(self, wanted: Prompting) -> None:
        super().__init__()
        inside = int(wanted.width * wanted.mlp_ratio)
        self.heads = wanted.heads
        self.norm1, self.norm2 = (nn.LayerNorm(wanted.width, eps=1e-6) for _ in range(2))
        self.query, self.out = nn.Linear(wanted.width, wanted.width), nn.Linear(wanted.width, wanted.width)
        self.key_value = nn.Linear(wanted.width, 2 * wanted.width)
        self.feed = nn.Sequential(nn.Linear(wanted.width, inside), nn.GELU(), nn.Linear(inside, wanted.width))

    def forward(self, rows: Float[Tensor, "b m w"], given: Float[Tensor, "b n w"]) -> Float[Tensor, "b m w"]:
        normed = self.norm1(rows)
        query = self.query(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
        both = self.key_value(torch.cat([given, normed], dim=1)).unflatten(2, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
        read = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        rows = rows + self.out(read)
        return rows + self.feed(self.norm2(rows))
