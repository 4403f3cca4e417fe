"""The rows of another encoder.

Whether that one is frozen, an average or trained decides whether gradients flow: nothing is detached here.
"""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float, Int
from torch import Tensor

from onestage.layers.normalise import unit
from onestage.ops import layer_normalise, select
from onestage.roles import Space, TargetMaker
from onestage.spec import UserError, spec
from onestage.targets.rows import RowsWanted
from onestage.types import Target, Tokens, View, Wanted


@final
@spec
class Encoded:
    """Rows of the encoder named `encoder` on the target's view."""

    encoder: str
    rows: RowsWanted
    space: Space = "joint"
    """The space of a teacher's rows: the one it shares with texts, or its own normed rows before that."""
    norm: Literal["none", "layer", "l2"] = "none"
    """`layer`: each row to mean 0 and variance 1 (FD, arXiv:2205.14141); `l2`: to unit length."""
    kind: Literal["encoded"] = "encoded"

    def build(self, width: int) -> EncodedTarget:
        """The target for encoder rows of `width` values in the chosen space."""
        return EncodedTarget(self, width)


@final
class EncodedTarget(TargetMaker):
    """Selects the wanted rows of tokens and normalises them."""

    def __init__(self, wanted: Encoded, width: int) -> None:
        super().__init__()
        self.encoder = wanted.encoder
        self.rows: RowsWanted = wanted.rows
        self.norm = wanted.norm
        self.width = width

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """The wanted rows.

        Raises:
            UserError: when the encoder's grid is not the wanted one (a cell would mean another place).
        """
        assert isinstance(source, Tokens), "an encoded target is made of tokens"
        if self.rows != "pooled" and source.grid != wanted.grid:
            raise UserError(
                f"rows: {self.rows} of {self.encoder} needs equal grids: {self.encoder} has "
                f"{source.grid[0]} x {source.grid[1]} cells, {wanted.grid[0]} x {wanted.grid[1]} are wanted; "
                "choose the sizes and patches so that they agree"
            )
        return Target(self._normed(select(source, wanted.cell)), identity, None)

    def _normed(self, rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m k"]:
        if self.norm == "layer":
            return layer_normalise(rows)
        return unit(rows) if self.norm == "l2" else rows
