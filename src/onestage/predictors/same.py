"""No predictor: the encoder's own rows are the guess (MoCo, arXiv:1911.05722; DINO, arXiv:2104.14294)."""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from onestage.ops import select
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import UserError, spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Same:
    """The identity, at the rows that the encoder, or its projector, returned."""

    kind: Literal["same"] = "same"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> SamePredictor:
        """From rows of `width` values to target rows of as many.

        Raises:
            UserError: when they are not as many.
        """
        if width != out:
            raise UserError(
                f"predictor same: the encoder's rows have {width} values and the target's {out}; use linear"
            )
        return SamePredictor()


@final
class SamePredictor(Predictor):
    """Selects rows."""

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The rows of the wanted cells; each must be among the encoder's, or `POOLED`."""
        return select(tokens, wanted.cell)
