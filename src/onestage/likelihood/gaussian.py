"""The Gaussian likelihood N(guess, sigma^2 I) of M3I (arXiv:2211.09807, eq. 1), and its robust relative.

`squared` is MAE's loss (arXiv:2111.06377), the mean over the k values of a row. `smooth_l1` is the loss of FD
(arXiv:2205.14141) and data2vec. `cosine` is the Gaussian between unit vectors up to a constant,
|a - b|^2 = 2 - 2 cos: the losses of UTA (arXiv:2405.19009) and MVP. sigma^2 is the weight of the term.

A Gaussian has no negatives: what keeps a trained target from collapsing has to come from elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.layers.normalise import unit
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood
from onestage.spec import UserError, spec
from onestage.types import Scope, Target


@final
@spec
class Gaussian:
    """The distance of each guessed row from its target row."""

    form: Literal["squared", "smooth_l1", "cosine"] = "squared"
    """Mean squared error over a row, smooth L1 over a row, or minus the cosine."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Where `smooth_l1` turns from d^2 / (2 beta) to |d| - beta / 2; 0 is the absolute error."""
    kind: Literal["gaussian"] = "gaussian"

    @property
    def scope(self) -> Scope:
        """A sample's loss does not depend on the other samples."""
        return "sample"

    @property
    def regulariser(self) -> Literal["none"]:
        """What keeps the targets spread: nothing."""
        return "none"

    def build(self, width: int | None = None) -> GaussianLikelihood:
        """The loss module; rows of any width."""
        return GaussianLikelihood(self)


@final
class GaussianLikelihood(Likelihood):
    """Compares row with row, and averages over the rows that count."""

    scope: Scope = "sample"

    def __init__(self, wanted: Gaussian) -> None:
        super().__init__()
        self.form = wanted.form
        self.beta = wanted.beta

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when guess and target differ in shape (broadcasting would hide it).
        """
        if guess.shape != target.rows.shape:
            raise UserError(
                f"a gaussian likelihood compares row with row: the guess has shape {tuple(guess.shape)}, the "
                f"target {tuple(target.rows.shape)}; for a table of classes use boltzmann with over: table"
            )
        with full_precision(guess):
            return weighted_mean(self._distance(at_least_fp32(guess), at_least_fp32(target.rows)), target.weight)

    def candidates(self, target: Target) -> int:
        """None: a Gaussian has no partition function over candidates."""
        return 0

    def after_step(self) -> None:
        """Nothing to commit: a Gaussian has no state."""

    def after_skip(self) -> None:
        """Nothing to forget."""

    def _distance(self, guess: Float[Tensor, "b m k"], rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m"]:
        if self.form == "cosine":
            return -(unit(guess) * unit(rows)).sum(dim=-1)
        if self.form == "smooth_l1":
            return functional.smooth_l1_loss(guess, rows, reduction="none", beta=self.beta).mean(dim=-1)
        return (guess - rows).square().mean(dim=-1)
