"""UniGrad's regulariser: a guess is kept away from the directions that many targets share.

UniGrad (arXiv:2112.05141, section 4) writes contrastive, asymmetric and decorrelating methods as one gradient,
-u + w F u with F the correlation of the targets. SiameseIM (arXiv:2206.01204, its code) adds it to a dense loss as

    weight * mean_n p_n^T C p_n / k,    C = mean_n t_n t_n^T,

over all rows n of the batch. It is computed as ((P C) * P).sum(-1); the (rows x rows) matrix P C P^T is never formed.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from onestage.distributed import mean
from onestage.likelihood.average import full_precision
from onestage.ops import at_least_fp32
from onestage.roles import Regulariser
from onestage.spec import UserError, spec
from onestage.types import Scope, Target


@final
@spec
class UniGrad:
    """Decorrelation of guesses by the targets of the batch."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """SiameseIM's for rows of unit variance; UniGrad's own is 100 for unit vectors and another reduction."""
    kind: Literal["unigrad"] = "unigrad"

    def build(self, width: int | None = None) -> Decorrelation:
        """The module, for rows of any width."""
        return Decorrelation(self.weight)


@final
class Decorrelation(Regulariser):
    """No gradient flows through the correlation of the targets."""

    scope: Scope = "batch"

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """What is added to the term's loss, in fp32.

        Raises:
            UserError: when guess and target differ in shape.
        """
        if guess.shape != target.rows.shape:
            raise UserError(
                f"unigrad compares row with row: the guess has shape {tuple(guess.shape)}, the target "
                f"{tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            rows = at_least_fp32(guess).flatten(0, 1)
            others = at_least_fp32(target.rows.detach()).flatten(0, 1)
            correlation = mean(others.T @ others / len(others))
            return self.weight * ((rows @ correlation) * rows).sum(dim=-1).mean() / rows.shape[-1]
