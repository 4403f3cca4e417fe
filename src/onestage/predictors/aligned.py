"""Guessing from the outputs of the student's blocks, for targets that are outputs of a teacher's blocks.

`aligned` is MaskAlign's dynamic alignment (arXiv:2211.08887, sec. 3.2): one block of the teacher is explained from a
learned mix of all blocks of the student, sum_s w_s h_s, then a linear map. At first w is 1 at the block as far from the
last as the teacher's, and 0.01 more everywhere. `block` is UMT's head (arXiv:2303.16058, sec. 3.2 and its code): one
block of the student after the encoder's final norm, plus fixed positions, a linear map and a norm.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.ops import block_of, select, sincos_2d
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted

Number = Annotated[int, Field(ge=1)]


@final
@spec
class Aligned:
    """A linear map of a learned mix of blocks."""

    block: Number = 1
    """The teacher's block that is explained, counted from the last one, 1."""
    of: Number = 12
    """How many of the student's last blocks are mixed; a shallower student gives all that it has."""
    kind: Literal["aligned"] = "aligned"

    def __post_init__(self) -> None:
        if self.block > self.of:
            raise ValueError(f"block: {self.block} is not among the {self.of} blocks that are mixed")

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> AlignedPredictor:
        """From blocks of `width` values to target rows of `out` values; `grid` does not matter."""
        return AlignedPredictor(self, width, out)


@final
class AlignedPredictor(Predictor):
    """The weights of the mix are a vector, and so do not decay."""

    def __init__(self, wanted: Aligned, width: int, out: int) -> None:
        super().__init__()
        start = torch.full((wanted.of,), 0.01)
        start[-wanted.block] += 1
        self.mix = nn.Parameter(start)
        self.map = linear(width, out)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the encoder's rows, or `POOLED`."""
        depth = min(len(tokens.layers), len(self.mix))
        rows = torch.stack([select(block_of(tokens, number), wanted.cell) for number in range(depth, 0, -1)])
        return self.map(torch.einsum("s,sbmd->bmd", self.mix[-depth:].to(rows.dtype), rows))


@final
@spec
class Block:
    """Norm, positions, a linear map and a norm, at the rows of one block."""

    block: Number = 1
    """Which of the student's blocks is read, counted from the last one, 1."""
    kind: Literal["block"] = "block"

    @property
    def of(self) -> int:
        """How many of the student's last blocks it reads: the last is among the rows anyway."""
        return self.block if self.block > 1 else 0

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> BlockPredictor:
        """From blocks of `width` values on `grid` to target rows of `out` values."""
        return BlockPredictor(self, width, out, grid)


@final
class BlockPredictor(Predictor):
    """The positions are neither trained nor saved; the pooled row's is zero."""

    positions: Tensor

    def __init__(self, wanted: Block, width: int, out: int, grid: Grid) -> None:
        super().__init__()
        self.block = wanted.block
        positions = torch.cat([torch.zeros(1, width), sincos_2d(width, grid)])
        self.register_buffer("positions", positions, persistent=False)
        self.map = linear(width, out)
        self.norm = nn.LayerNorm(out, eps=1e-6)

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell; each must be among the encoder's rows, or `POOLED`."""
        read = tokens if self.block == 1 else block_of(tokens._replace(layers=tokens.normed), self.block)
        rows = select(read, wanted.cell) + self.positions[wanted.cell + 1]
        return self.norm(self.map(rows))


def linear(width: int, out: int) -> nn.Linear:
    """Weights from a normal of 0.02 cut at two, bias 0, as a ViT's head."""
    made = nn.Linear(width, out)
    nn.init.trunc_normal_(made.weight, std=0.02)
    nn.init.zeros_(made.bias)
    return made
