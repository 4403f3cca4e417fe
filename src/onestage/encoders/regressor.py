"""CAE's latent regressor (arXiv:2202.03026, sec. 3.2; Atten4Vis/CAE): hidden cells in the space of the encoder's rows.

Mask tokens are the first queries, one for each hidden cell. In every block they read the encoder's rows and themselves,
and their positions count where queries meet keys, not in what is read. The encoder itself says nothing of what it does
not see, so that telling is kept apart from seeing. What comes out are rows of the hidden cells alone.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from onestage.encoders.initialise import initialise
from onestage.ops import place_of, positions_of, withheld
from onestage.roles import Projector
from onestage.spec import UserError, spec
from onestage.types import Tokens

Number = Annotated[int, Field(ge=1)]


@final
@spec
class Regressor:
    """`depth` blocks of cross-attention, as wide as the encoder's rows."""

    depth: Number = 4
    heads: Number = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    layer_scale: Annotated[float, Field(gt=0)] = 0.1
    kind: Literal["regressor"] = "regressor"

    def build(self, width: int) -> RegressorProjector:
        """For rows of `width` values.

        Raises:
            UserError: when the heads do not share the width equally, or it holds no sines and cosines of two axes.
        """
        if width % self.heads or width % 4:
            raise UserError(
                f"projector regressor: {width} values are not shared by {self.heads} heads equally, or are no multiple "
                "of 4 (sine-cosine positions); change heads"
            )
        return RegressorProjector(self, width)


@final
class RegressorProjector(Projector):
    """Initialised as BEiT's blocks. Its pooled row is the mean of what it gives: the class token is not read."""

    def __init__(self, wanted: Regressor, width: int) -> None:
        super().__init__()
        self.width = width
        self.mask = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(_Crossing(wanted, width) for _ in range(wanted.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self, "beit", wanted.depth)
        nn.init.trunc_normal_(self.mask, std=0.02)

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of the cells that were kept to rows of those that were not."""
        cells, count = tokens.place.cell, tokens.grid[0] * tokens.grid[1]
        seen = torch.zeros(len(cells), count, dtype=torch.bool, device=cells.device).scatter(1, cells, True)
        hidden = withheld(~seen, count - cells.shape[1])
        asked, given = (positions_of(one, tokens.grid, self.width).to(tokens.rows.dtype) for one in (hidden, cells))
        rows = torch.zeros_like(asked) + self.mask
        for block in self.blocks:
            rows = block(rows, tokens.rows, asked, torch.cat([given, asked], dim=1))
        rows = self.norm(rows)
        place = place_of(hidden)
        return tokens._replace(rows=rows, pooled=rows.mean(dim=1), place=place, layers=(), normed=(), bias=None)


@final
class _Crossing(nn.Module):
    """One pre-norm block: attention of the hidden cells' rows over everything, and a feed-forward of theirs."""

    def __init__(self, wanted: Regressor, width: int) -> None:
        super().__init__()
        inside = int(width * wanted.mlp_ratio)
        self.heads = wanted.heads
        self.norm_query, self.norm_key, self.norm_value, self.norm_feed = (
            nn.LayerNorm(width, eps=1e-6) for _ in range(4)
        )
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, width))
        self.scale_read, self.scale_feed = (nn.Parameter(torch.full((width,), wanted.layer_scale)) for _ in range(2))

    def forward(
        self,
        rows: Float[Tensor, "b m d"],
        given: Float[Tensor, "b n d"],
        asked: Float[Tensor, "b m d"],
        places: Float[Tensor, "b l d"],
    ) -> Float[Tensor, "b m d"]:
        both = torch.cat([given, rows.to(given.dtype)], dim=1)
        query = self._split(self.query(self.norm_query(rows + asked)))
        key, value = self._split(self.key(self.norm_key(both + places))), self._split(self.value(self.norm_value(both)))
        read = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        rows = rows + self.scale_read * self.out(read)
        return rows + self.scale_feed * self.feed(self.norm_feed(rows))

    def _split(self, rows: Float[Tensor, "b l d"]) -> Float[Tensor, "b h l k"]:
        return rows.unflatten(2, (self.heads, -1)).transpose(1, 2)
