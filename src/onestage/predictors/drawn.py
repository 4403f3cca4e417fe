"""A picture drawn by another term's guess, seen by a frozen encoder: perceptual likeness (PeCo, arXiv:2111.12710).

The guess of a term of pixels is a picture. What a frozen encoder says of it, with gradients, is the guess of what it
says of the true one: pixels that mean the same are worth the same. Nothing is trained here.
"""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from onestage.ops import select
from onestage.predictors.reach import Reach
from onestage.roles import Predictor
from onestage.spec import spec
from onestage.types import Grid, Tokens, Wanted


@final
@spec
class Drawn:
    """Rows of the target's encoder, and of the target's block, on the picture that the term `of` guesses."""

    of: str = "pixels"
    """An earlier term, whose target is all pixels as they are."""
    kind: Literal["drawn"] = "drawn"

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> DrawnPredictor:
        """Of rows of any width: it is given those of the target's encoder."""
        return DrawnPredictor()


@final
class DrawnPredictor(Predictor):
    """Selects rows."""

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The rows of the wanted cells of the drawn picture."""
        return select(tokens, wanted.cell)
