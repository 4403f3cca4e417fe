"""MSN's likelihood (arXiv:2204.07141, eq. 1 to 3): a soft choice among trained prototypes explains another one.

With unit rows z of guesses and z' of targets, and unit prototypes q_k, both compared with the same prototypes,

    p = softmax(z . q / temperature),    p' = softmax(z' . q / (temperature sharpness)) after Sinkhorn's iterations,
    L = mean of -sum_k p'_k log p_k  +  me_max (ln K - H(mean of p over all guesses of all terms that share it)).

The second part, the mean entropy maximisation, keeps all prototypes in use; no gradient flows through p'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.distributed import mean
from onestage.layers.normalise import unit
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.sinkhorn import balanced
from onestage.ops import at_least_fp32
from onestage.roles import Shared
from onestage.spec import UserError, spec
from onestage.types import Scope, Target

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@final
@spec
class Prototypes:
    """Cross-entropy between soft choices among prototypes, the target's sharpened and balanced."""

    count: Annotated[int, Field(ge=2)] = 1024
    temperature: Temperature = 0.1
    sharpness: Temperature = 0.25
    """What the temperature of targets is multiplied by."""
    sinkhorn: Annotated[int, Field(ge=0)] = 3
    """Iterations that balance the targets; 0 leaves them as they are."""
    me_max: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of the mean entropy maximisation."""
    kind: Literal["prototypes"] = "prototypes"

    @property
    def scope(self) -> Scope:
        """What is balanced, and what the entropy is of, is the whole batch."""
        return "batch"

    @property
    def regulariser(self) -> Literal["me-max"]:
        """What keeps the choices spread."""
        return "me-max"

    def build(self, width: int | None = None) -> PrototypesLikelihood:
        """The loss module, for rows of `width` values."""
        assert width is not None, "prototypes are as wide as the targets"
        return PrototypesLikelihood(self, width)


@final
class PrototypesLikelihood(Shared):
    """The prototypes are trained with the run, and start as the weights of a linear layer do."""

    scope: Scope = "batch"

    def __init__(self, wanted: Prototypes, width: int) -> None:
        super().__init__()
        self.wanted = wanted
        self.prototypes = nn.Parameter(torch.empty(wanted.count, width))
        nn.init.uniform_(self.prototypes, -(width**-0.5), width**-0.5)

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The cross-entropy, in fp32.

        Raises:
            UserError: when guess and target differ in shape.
        """
        if guess.shape != target.rows.shape:
            raise UserError(
                f"prototypes compare row with row: the guess has shape {tuple(guess.shape)}, the target "
                f"{tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            chosen = self.chosen(target.rows)
            surprise = -self._logits(guess).log_softmax(dim=-1)
            return weighted_mean((chosen * surprise).sum(dim=-1), target.weight)

    @torch.no_grad()
    def chosen(self, rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m c"]:
        """What the targets choose."""
        sharp = (self._logits(rows) / self.wanted.sharpness).softmax(dim=-1)
        return balanced(sharp.flatten(0, 1), self.wanted.sinkhorn).view(sharp.shape)

    def together(self, guesses: Sequence[Float[Tensor, "b _ k"]]) -> Float[Tensor, ""]:
        """The mean entropy maximisation over the guesses of all terms and ranks: 0 where the prototypes are used
        equally often, `me_max` ln K where one takes all."""
        with full_precision(guesses[0]):
            choices = torch.cat([self._logits(guess).softmax(dim=-1).flatten(0, 1) for guess in guesses])
            used = mean(choices.mean(dim=0))
            return self.wanted.me_max * (math.log(self.wanted.count) + torch.xlogy(used, used).sum())

    def candidates(self, target: Target) -> int:
        """The prototypes."""
        return self.wanted.count

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""

    def _logits(self, rows: Float[Tensor, "*b k"]) -> Float[Tensor, "*b c"]:
        cosines = unit(at_least_fp32(rows)) @ unit(at_least_fp32(self.prototypes)).T
        return cosines / self.wanted.temperature
