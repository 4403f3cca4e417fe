"""Barlow Twins' loss (arXiv:2103.03230, eq. 1): two views of an image agree in each value, and values do not repeat.

With guesses p and targets z, each value normalised over the batch of all ranks to mean 0 and (biased) variance 1,

    C_ij = mean over the batch of p_i z_j,      L = sum_i (1 - C_ii)^2 + off_diagonal sum_{i != j} C_ij^2.

Under M3I's eq. 1 the first sum is the Gaussian prediction term and the second the regulariser: decorrelation keeps the
entropy of the targets up, so both sides may be trained. The official code's all-reduce has no gradient, so that each of
W ranks sees 1 / W of it; here it is exact.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from onestage.distributed import mean
from onestage.likelihood.average import full_precision
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood
from onestage.spec import UserError, spec
from onestage.types import Scope, Target

EPS = 1e-5
"""Added to a variance, as batch norm does."""


@final
@spec
class CrossCorrelation:
    """The cross-correlation of two views is to be the identity."""

    off_diagonal: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0051
    """Weight of what different values have in common."""
    kind: Literal["cross_correlation"] = "cross_correlation"

    @property
    def scope(self) -> Scope:
        """The correlation is that of the batch."""
        return "batch"

    @property
    def regulariser(self) -> Literal["decorrelation"]:
        """What keeps the targets spread."""
        return "decorrelation"

    def build(self, width: int | None = None) -> CorrelationLikelihood:
        """The loss module; rows of any width."""
        return CorrelationLikelihood(self.off_diagonal)


@final
class CorrelationLikelihood(Likelihood):
    """One guess and one target row a sample."""

    scope: Scope = "batch"

    def __init__(self, off_diagonal: float) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when there is not exactly one guess and one target row per sample, or rows are weighted.
        """
        if guess.shape != target.rows.shape or guess.shape[1] != 1 or target.weight is not None:
            raise UserError(
                "cross_correlation takes one row per sample (rows: pooled) and no sample left out: the guess has "
                f"shape {tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            first, second = (_standard(at_least_fp32(rows[:, 0])) for rows in (guess, target.rows))
            correlation = mean(first.T @ second / len(first))
            same = correlation.diagonal()
            others = correlation.square().sum() - same.square().sum()
            return (1 - same).square().sum() + self.off_diagonal * others

    def candidates(self, target: Target) -> int:
        """None: it has no partition function over candidates."""
        return 0

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""


def _standard(rows: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Each value to mean 0 and variance 1 over the global batch."""
    centred = rows - mean(rows.mean(dim=0))
    return centred * torch.rsqrt(mean(centred.square().mean(dim=0)) + EPS)
