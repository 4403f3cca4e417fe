"""What the decoders share: the size of a predictor that is a transformer, and the parts it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.blocks import check_widths, xavier
from onestage.ops import sincos_2d
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


class TransformerPredictor(Predictor, ABC):
    """What every transformer over a grid is made of: embedded rows and a mask token at fixed positions, blocks, a norm
    and a head. The pooled row stands in front with position zero; the positions are neither trained nor saved."""

    positions: Tensor
    """(1 + cells, width): POOLED is -1, so every cell stands at its number plus one."""

    def __init__(self, wanted: Transformer, width: int, out: int, grid: Grid, blocks: nn.Module) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(width, wanted.width)
        self.mask = nn.Parameter(torch.empty(wanted.width))
        positions = torch.cat([torch.zeros(1, wanted.width), sincos_2d(wanted.width, grid)])
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = blocks
        self.norm = nn.LayerNorm(wanted.width, eps=1e-6)
        self.head = nn.Linear(wanted.width, out)
        nn.init.normal_(self.mask, std=0.02)
        self.apply(xavier)
