"""BEiT v2's patch aggregation (arXiv:2208.06366, sec. 3.2; microsoft/unilm, beit2): what makes the class token sum up.

Cells as they leave an early block meet the class token as it leaves the last one, and a few more blocks let the cells
read it. Whatever these cells then tell of what is hidden, the class token has to carry. The blocks see the encoder's
own relative positions, its final norm follows them, and both are shared: nothing but the blocks is new.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from pydantic import Field

from onestage.encoders.initialise import initialise
from onestage.layers.blocks import transformer_blocks
from onestage.ops import block_of
from onestage.roles import Projector
from onestage.spec import UserError, spec
from onestage.types import Tokens

Number = Annotated[int, Field(ge=1)]


@final
@spec
class Aggregation:
    """`depth` more blocks over the cells of an early block and the class token of the last."""

    block: Number = 4
    """Whose cells are read, counted from the encoder's last block, 1: the ninth of 12, the 21st of 24."""
    depth: Number = 2
    heads: Number = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    layer_scale: float | None = 0.1
    drop_path: float = 0.0
    before: Annotated[int, Field(ge=0)] = 9
    """The number of that block from the first one on: branches start as those of the blocks that would follow it."""
    kind: Literal["aggregation"] = "aggregation"

    def build(self, width: int) -> AggregationProjector:
        """For rows of `width` values.

        Raises:
            UserError: when the heads do not share the width equally.
        """
        if width % self.heads:
            raise UserError(
                f"projector aggregation: {self.heads} heads do not share {width} values equally; change heads"
            )
        return AggregationProjector(self, width)


@final
class AggregationProjector(Projector):
    """Pre-norm blocks, initialised as BEiT's. The encoder's final norm is not in here."""

    def __init__(self, wanted: Aggregation, width: int) -> None:
        super().__init__()
        self.width, self.block = width, wanted.block
        self.blocks = transformer_blocks(
            width,
            wanted.depth,
            wanted.heads,
            wanted.mlp_ratio,
            layer_scale=wanted.layer_scale,
            drop_path=wanted.drop_path,
        )
        initialise(self, "beit", wanted.depth, before=wanted.before)

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of the whole input with outputs of blocks to tokens that the encoder's final norm is still due to."""
        cells = block_of(tokens, self.block).rows
        rows = torch.cat([block_of(tokens, 1).pooled.unsqueeze(1), cells], dim=1)
        for block in self.blocks:
            rows = block(rows, attn_mask=tokens.bias)
        return tokens._replace(rows=rows[:, 1:], pooled=rows[:, 0], layers=(), normed=())
