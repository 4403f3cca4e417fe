"""The size of a predictor that is a transformer, which the decoders share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import Field

from onestage.layers.blocks import check_widths
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid


@spec
class Transformer(ABC):
    """`depth` blocks of `width` values, with `heads` heads and feed-forwards `mlp_ratio` times as wide.

    Raises:
        UserError: when the width does not suit the heads, or positions of sines and cosines.
    """

    width: Annotated[int, Field(ge=4)] = 512
    depth: Annotated[int, Field(ge=0)] = 8
    heads: Annotated[int, Field(ge=1)] = 16
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        check_widths(self.width, self.heads)

    @abstractmethod
    def build(self, width: int, out: int, grid: Grid) -> Predictor:
        """From encoder rows of `width` values on `grid` to target rows of `out` values."""
