"""A decoder that is told both geometries: where each target cell lies as seen from the input view.

Equation 1 of M3I conditions the prediction on t_x and t_y; SiameseIM (arXiv:2206.01204, section 3.2) does so by placing
mask tokens at the target cells' positions relative to the input's crop, with the ratio of the two crops' sizes beside.
The rows of the input stand before them at their own positions. Boxes are in pixels of the unflipped source, so one
formula serves crops, scales and flips; where both views are the same crop it gives the cells themselves.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.blocks import transformer_blocks, xavier
from onestage.ops import relative_cells, sincos
from onestage.predictors.reach import Reach
from onestage.predictors.transformer import Transformer, TransformerPredictor
from onestage.spec import UserError, spec
from onestage.types import Grid, Tokens, Wanted

SCALE = 10.0
"""What the logarithm of a ratio of sizes is multiplied by before it is encoded as a position (SiameseIM's code)."""


@final
@spec
class Relative(Transformer):
    """A ViT of `depth` blocks over the input's rows and one mask token for each wanted cell."""

    width: Annotated[int, Field(ge=4)] = 768
    depth: Annotated[int, Field(ge=0)] = 4
    kind: Literal["relative"] = "relative"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "views"

    def build(self, width: int, out: int, grid: Grid) -> RelativePredictor:
        """From encoder rows of `width` values to target rows of `out` values on a view's `grid`."""
        return RelativePredictor(self, width, out, grid)


@final
class RelativePredictor(TransformerPredictor):
    """Positions of both kinds are fixed sine-cosine ones; the relative ones pass one trained linear map."""

    def __init__(self, wanted: Relative, width: int, out: int, grid: Grid) -> None:
        blocks = transformer_blocks(wanted.width, wanted.depth, wanted.heads, wanted.mlp_ratio)
        super().__init__(wanted, width, out, grid, blocks)
        self.width = wanted.width
        self.place = nn.Linear(2 * wanted.width, wanted.width).apply(xavier)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell.

        Raises:
            UserError: when a geometry is missing, rows are not on the decoder's grid, or a pooled row is wanted.
        """
        if tokens.geometry is None or wanted.geometry is None:
            raise UserError("a relative decoder places cells by the crops of two views; this target is not a view")
        if tokens.grid != self.grid:
            raise UserError(f"a relative decoder for {self.grid} cells was given rows of {tokens.grid}")
        rows = self.embed(tokens.rows) + self.positions[tokens.place.cell + 1]
        pooled = self.embed(tokens.pooled) + self.positions[0]
        queries = self.mask + self.place(self._relative(tokens, wanted)).to(rows.dtype)
        seen = torch.cat([pooled.unsqueeze(1), rows, queries.to(rows.dtype)], dim=1)
        return self.head(self.norm(self.blocks(seen)[:, -wanted.cell.shape[1] :]))

    def _relative(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m w2"]:
        """Row and column of each wanted cell in the input's grid, and how much larger the target's crop is."""
        assert tokens.geometry is not None and wanted.geometry is not None
        place = relative_cells(tokens.geometry, wanted.geometry, wanted.cell, self.grid, wanted.grid)
        ratio = SCALE * (wanted.geometry.box[:, 2:] / tokens.geometry.box[:, 2:]).log()
        sizes = sincos(ratio, self.width).unsqueeze(1).expand(-1, wanted.cell.shape[1], -1)
        return torch.cat([sincos(place, self.width), sizes], dim=-1)
