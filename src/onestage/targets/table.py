"""A trained embedding for every class: M3I's category embedding (arXiv:2211.09807, supervised row).

There is no bias here. With a linear predictor A x + b in front, the logits are W (A x + b): any linear
classifier with a bias, when the table is at least min(classes, encoder width + 1) wide.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor, nn

from onestage.roles import TargetMaker
from onestage.spec import spec
from onestage.targets.rows import RowsWanted
from onestage.types import Target, Tokens, View, Wanted


@final
@spec
class Table:
    """One row per class, explained from the pooled row."""

    classes: Annotated[int, Field(ge=1)] | None = None
    """Empty: as many as the data have."""
    kind: Literal["table"] = "table"

    @property
    def rows(self) -> RowsWanted:
        """A label belongs to the whole image."""
        return "pooled"

    def build(self, width: int, classes: int) -> TableTarget:
        """A table of `classes` rows of `width` values."""
        return TableTarget(width, classes)


@final
class TableTarget(TargetMaker):
    """The whole table, shared by the batch, and the label of each sample."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(classes, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """`source` is the labels, in [0, classes); they are the identity."""
        assert isinstance(source, Tensor), "a table target is made of labels"
        return Target(self.weight, source, None)

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""
