"""Projectors: what stands between a backbone and a term while training, and is left out when the backbone is used.

f_theta = backbone + projector (M3I, arXiv:2211.09807, eq. 1). An averaged encoder has the average of the projector too.
`Blocks` is SiameseIM's (arXiv:2206.01204): a linear map and two transformer blocks with batch norm over all rows.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.blocks import transformer_blocks, xavier
from onestage.ops import at_least_fp32
from onestage.roles import Projector
from onestage.spec import UserError, spec
from onestage.types import Tokens


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
class RowBatchNorm(nn.Module):
    """Batch norm of each channel over all rows of all samples, in at least fp32. Built as timm builds norms."""

    def __init__(self, width: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, device=device, dtype=dtype)

    def forward(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.norm(at_least_fp32(rows).flatten(0, 1)).unflatten(0, rows.shape[:2])
