"""Projectors: what stands between a backbone and a term while training, and is left out when the backbone is used.

f_theta = backbone + projector (M3I, arXiv:2211.09807, eq. 1). An averaged encoder has the average of the projector too.
`Blocks` is SiameseIM's (arXiv:2206.01204): a linear map and two transformer blocks with batch norm over all rows. `Mlp`
is the head of MoCo, BYOL and their kin.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from pydantic import Field
from torch import nn

from onestage.layers.blocks import transformer_blocks, xavier
from onestage.layers.heads import Activation, End, Norm, RowBatchNorm, head
from onestage.layers.normalise import unit
from onestage.ops import place_of
from onestage.roles import Projector
from onestage.spec import UserError, spec
from onestage.types import POOLED, Tokens


@final
@spec
class Blocks:
    """A linear map and `depth` transformer blocks over the pooled row and the rows together, as wide as they are."""

    depth: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    norm: Literal["batch", "layer"] = "batch"
    """Before attention and feed-forward: each channel over all rows of the batch, or each row."""
    kind: Literal["blocks"] = "blocks"

    def build(self, width: int) -> BlocksProjector:
        """For rows of `width` values.

        Raises:
            UserError: when the heads do not share the width equally.
        """
        if width % self.heads:
            raise UserError(f"projector blocks: {self.heads} heads do not share {width} values equally; change heads")
        return BlocksProjector(self, width)


@final
class BlocksProjector(Projector):
    """Pre-norm blocks, xavier-uniform."""

    def __init__(self, wanted: Blocks, width: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(width, width)
        norm = RowBatchNorm if wanted.norm == "batch" else None
        self.blocks = transformer_blocks(width, wanted.depth, wanted.heads, wanted.mlp_ratio, norm)
        self.apply(xavier)

    def forward(self, tokens: Tokens) -> Tokens:
        rows = self.blocks(self.embed(torch.cat([tokens.pooled.unsqueeze(1), tokens.rows], dim=1)))
        return tokens._replace(rows=rows[:, 1:], pooled=rows[:, 0], layers=())


@final
@spec
class Mlp:
    """Linear layers over the pooled row, over the rows, or the same over both."""

    hidden: Annotated[int, Field(ge=1)]
    depth: Annotated[int, Field(ge=1)]
    out: Annotated[int, Field(ge=1)]
    of: Literal["pooled", "rows", "both"] = "pooled"
    """`pooled`: no other row is left. `rows`: the pooled row is then their mean (DenseCL, arXiv:2011.09157)."""
    activation: Activation = "gelu"
    norm: Norm = "none"
    end: End = "bias"
    kind: Literal["mlp"] = "mlp"

    def build(self, width: int) -> MlpProjector:
        """For rows of `width` values."""
        return MlpProjector(self, width)


@final
class MlpProjector(Projector):
    """Weights from a normal of 0.02 cut at two, biases 0."""

    def __init__(self, wanted: Mlp, width: int) -> None:
        super().__init__()
        self.width, self.of = wanted.out, wanted.of
        widths = [width, *[wanted.hidden] * (wanted.depth - 1), wanted.out]
        self.layers = head(widths, wanted.activation, wanted.norm, wanted.end)

    def forward(self, tokens: Tokens) -> Tokens:
        if self.of == "pooled":
            pooled = self.layers(tokens.pooled)
            place = place_of(tokens.place.cell.new_full((len(pooled), 1), POOLED))
            return tokens._replace(rows=pooled.unsqueeze(1), pooled=pooled, place=place, layers=())
        if self.of == "rows":
            rows = self.layers(tokens.rows)
            return tokens._replace(rows=rows, pooled=rows.mean(dim=1), layers=())
        rows = self.layers(torch.cat([tokens.pooled.unsqueeze(1), tokens.rows], dim=1))
        return tokens._replace(rows=rows[:, 1:], pooled=rows[:, 0], layers=())


@final
@spec
class Codes:
    """DINO's head (arXiv:2104.14294, section 3.1): an MLP with GELU, rows of unit length, and their cosines to codes.

    Codes of unit length are a weight-normalised layer whose norms stay 1, as the paper trains it.
    """

    hidden: Annotated[int, Field(ge=1)] = 2048
    depth: Annotated[int, Field(ge=1)] = 3
    bottleneck: Annotated[int, Field(ge=1)] = 256
    codes: Annotated[int, Field(ge=2)] = 65536
    of: Literal["pooled", "rows", "both"] = "pooled"
    kind: Literal["codes"] = "codes"

    def build(self, width: int) -> CodesProjector:
        """For rows of `width` values."""
        return CodesProjector(self, width)


@final
class CodesProjector(Projector):
    """The codes are the parameter `last`, so that a group of the optimiser can hold them back at first."""

    def __init__(self, wanted: Codes, width: int) -> None:
        super().__init__()
        self.width = wanted.codes
        self.mlp = Mlp(hidden=wanted.hidden, depth=wanted.depth, out=wanted.bottleneck, of=wanted.of).build(width)
        self.last = nn.Parameter(torch.randn(wanted.codes, wanted.bottleneck))

    def forward(self, tokens: Tokens) -> Tokens:
        found, codes = self.mlp(tokens), unit(self.last)
        return found._replace(rows=unit(found.rows) @ codes.T, pooled=unit(found.pooled) @ codes.T)
