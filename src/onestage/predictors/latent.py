"""CAE's decoder (arXiv:2202.03026, sec. 3.2): self-attention among the rows at hand, then one linear map.

What stands before it has said everything in the encoder's space, so it sees neither the encoder's own rows nor mask
tokens. Where positions enter is not in the paper: they are added once, before the first block.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.blocks import check_widths, transformer_blocks, xavier
from onestage.ops import positions_of, select
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Latent:
    """`depth` blocks as wide as the rows."""

    depth: Annotated[int, Field(ge=1)] = 4
    heads: Annotated[int, Field(ge=1)] = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    layer_scale: Annotated[float, Field(gt=0)] = 0.1
    kind: Literal["latent"] = "latent"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> LatentPredictor:
        """From rows of `width` values to target rows of `out` values; the grid is that of the rows."""
        check_widths(width, self.heads)
        return LatentPredictor(self, width, out)


@final
class LatentPredictor(Predictor):
    """Xavier-uniform, biases 0."""

    def __init__(self, wanted: Latent, width: int, out: int) -> None:
        super().__init__()
        self.width = width
        self.blocks = transformer_blocks(
            width, wanted.depth, wanted.heads, wanted.mlp_ratio, layer_scale=wanted.layer_scale
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, out)
        self.apply(xavier)
        nn.init.trunc_normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the rows. The pooled row takes no part."""
        positions = positions_of(tokens.place.cell, tokens.grid, self.width)
        rows = self.norm(self.blocks(tokens.rows + positions.to(tokens.rows.dtype)))
        return self.head(select(tokens._replace(rows=rows), wanted.cell))
