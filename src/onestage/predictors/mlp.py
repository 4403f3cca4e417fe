"""Linear layers with GELU between them, applied to each row."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.ops import select
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class MLP:
    """`depth` linear layers, at the rows that the encoder returned."""

    hidden: Annotated[int, Field(ge=1)] | None = None
    """Width between the layers; empty: that of the encoder."""
    depth: Annotated[int, Field(ge=1)] = 2
    kind: Literal["mlp"] = "mlp"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> MLPPredictor:
        """From encoder rows of `width` values to target rows of `out` values; `grid` does not matter."""
        hidden = self.hidden or width
        return MLPPredictor([width, *[hidden] * (self.depth - 1), out])


@final
class MLPPredictor(Predictor):
    """Weights from a normal of 0.02 cut at two, biases 0."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            linear = nn.Linear(before, after)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the encoder's rows, or `POOLED`."""
        return self.layers(select(tokens, wanted.cell))
