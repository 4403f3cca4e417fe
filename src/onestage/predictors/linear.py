"""A linear map of each row: the predictor of UTA (arXiv:2405.19009), FD and CLIP's projections."""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from onestage.ops import select
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Linear:
    """One linear layer with a bias, at the rows that the encoder returned."""

    kind: Literal["linear"] = "linear"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> LinearPredictor:
        """From encoder rows of `width` values to target rows of `out` values; `grid` does not matter."""
        return LinearPredictor(width, out)


@final
class LinearPredictor(Predictor):
    """Weights from a normal of 0.02 cut at two, bias 0, as a ViT's head."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, out)
        nn.init.trunc_normal_(self.map.weight, std=0.02)
        nn.init.zeros_(self.map.bias)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the encoder's rows, or `POOLED`."""
        return self.map(select(tokens, wanted.cell))
