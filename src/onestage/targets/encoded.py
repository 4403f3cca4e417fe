"""The rows of another encoder.

Whether that one is frozen, an average or trained decides whether gradients flow: nothing is detached here.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.layers.normalise import unit
from onestage.ops import block_of, layer_normalise, place_of, select
from onestage.roles import Space, TargetMaker
from onestage.spec import UserError, spec
from onestage.targets.rows import RowsWanted
from onestage.targets.statistics import Statistics
from onestage.types import Grid, Target, Tokens, View, Wanted


@final
@spec
class Encoded:
    """Rows of the encoder named `encoder` on the target's view."""

    encoder: str
    rows: RowsWanted
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Outputs of these blocks in place of the final rows, counted from the last, 1. Of several, it is their mean, each
    row of each brought to mean 0 and variance 1 before (data2vec, arXiv:2202.03555)."""
    space: Space = "joint"
    """The space of a teacher's rows: the one it shares with texts, its own normed rows before that, its codes, or the
    scores of its categories."""
    norm: Literal["none", "layer", "l2", "standard"] = "none"
    """`layer`: each row to mean 0 and variance 1 (FD, arXiv:2205.14141); `l2`: to unit length; `standard`: each value
    by the running mean and deviation of the encoder's rows, so that the losses of several teachers are of one size."""
    fit: Literal["exact", "resample"] = "exact"
    """Of a grid that is not the student's: refused, or its rows resampled bilinearly to the student's cells."""
    sees: Literal["view", "hidden"] = "view"
    """What the encoder is shown: the view, or those of its cells alone that the term's input hides (CAE,
    arXiv:2202.03026), for an encoder of the row that can drop cells."""
    kind: Literal["encoded"] = "encoded"

    def __post_init__(self) -> None:
        if self.space == "codes" and (self.norm, self.fit, self.blocks) != ("none", "exact", ()):
            raise ValueError("space: codes gives numbers of codes: leave norm, fit and blocks out")
        if self.space == "codes" and self.rows not in {"all", "kept", "hidden"}:
            raise ValueError("space: codes has no pooled row; rows are 'all', 'kept' or 'hidden'")
        whole = (self.norm, self.fit, self.blocks, self.rows) == ("none", "exact", (), "pooled")
        if self.space == "categories" and not whole:
            raise ValueError("space: categories gives scores of the image: rows: pooled, and no norm, fit or blocks")

    def build(self, width: int) -> EncodedTarget:
        """The target for encoder rows of `width` values in the chosen space."""
        return EncodedTarget(self, width)

    @property
    def depth(self) -> int:
        """Of how many of the encoder's last blocks the outputs are needed."""
        return max(self.blocks, default=0)


@final
class EncodedTarget(TargetMaker):
    """Selects the wanted rows of tokens and normalises them."""

    def __init__(self, wanted: Encoded, width: int) -> None:
        super().__init__()
        self.encoder = wanted.encoder
        self.rows: RowsWanted = wanted.rows
        self.norm, self.blocks = wanted.norm, wanted.blocks
        self.fit = wanted.fit
        self.width = width
        self.statistics = Statistics(width) if wanted.norm == "standard" else None

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """The wanted rows.

        Raises:
            UserError: when the encoder's grid is not the wanted one (a cell would mean another place).
        """
        assert isinstance(source, Tokens), "an encoded target is made of tokens"
        if self.fit == "resample" and self.rows != "pooled":
            source = resampled(source, wanted.grid)
        if self.rows != "pooled" and source.grid != wanted.grid:
            raise UserError(
                f"rows: {self.rows} of {self.encoder} needs equal grids: {self.encoder} has "
                f"{source.grid[0]} x {source.grid[1]} cells, {wanted.grid[0]} x {wanted.grid[1]} are wanted; "
                "choose the sizes and patches so that they agree"
            )
        rows = self._normed(self._selected(source, wanted.cell))
        whole = None if self.statistics is not None else self._normed(source.pooled.detach().unsqueeze(1))[:, 0]
        return Target(rows, identity, None, whole)

    def after_step(self) -> None:
        """Commit the running statistics."""
        if self.statistics is not None:
            self.statistics.commit()

    def after_skip(self) -> None:
        """Forget those of a skipped step."""
        if self.statistics is not None:
            self.statistics.pending.clear()

    def _selected(self, source: Tokens, cells: Int[Tensor, "b m"]) -> Float[Tensor, "b m k"]:
        if self.blocks and not source.layers:
            raise UserError(f"target.blocks: '{self.encoder}' does not give the outputs of its blocks; leave it empty")
        found = [select(block_of(source, number), cells) for number in self.blocks]
        if len(found) > 1:
            return torch.stack([layer_normalise(rows) for rows in found]).mean(dim=0)
        return found[0] if found else select(source, cells)

    def _normed(self, rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m k"]:
        if self.statistics is not None:
            return self.statistics(rows)
        if self.norm == "layer":
            return layer_normalise(rows)
        return unit(rows) if self.norm == "l2" else rows


def resampled(tokens: Tokens, grid: Grid) -> Tokens:
    """Tokens of a whole grid, brought to another grid."""
    if tokens.grid == grid:
        return tokens
    maps = tokens.rows.transpose(1, 2).unflatten(2, tokens.grid)
    rows = functional.interpolate(maps.float(), grid, mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
    cells = torch.arange(grid[0] * grid[1], device=rows.device).expand(rows.shape[0], -1)
    return tokens._replace(rows=rows.to(tokens.rows.dtype), place=place_of(cells), grid=grid)
