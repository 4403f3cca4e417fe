"""Linear layers with GELU, or what a head has, between them, applied to each row."""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.heads import Activation, End, Norm, head
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
    activation: Activation = "gelu"
    norm: Norm = "none"
    end: End = "bias"
    kind: Literal["mlp"] = "mlp"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> MLPPredictor:
        """From encoder rows of `width` values to target rows of `out` values; `grid` does not matter."""
        hidden = self.hidden or width
        widths = [width, *[hidden] * (self.depth - 1), out]
        return MLPPredictor(head(widths, self.activation, self.norm, self.end))


@final
class MLPPredictor(Predictor):
    """Weights from a normal of 0.02 cut at two, biases 0."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the encoder's rows, or `POOLED`."""
        return self.layers(select(tokens, wanted.cell))
