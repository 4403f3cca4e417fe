"""The likelihood of another classifier's answer: distillation of its categories (DeiT, arXiv:2012.12877, sec. 3).

Of a guess g with a score for each category, and a target with the other classifier's scores t,

    hard (eq. 3):  -log softmax(g)[argmax t]
    soft (eq. 2):  tau^2 KL(softmax(t / tau) | softmax(g / tau))

The weights of eq. 2 and 3, lambda or a half, are those of the terms.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.likelihood.average import full_precision, weighted_mean
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood
from onestage.spec import spec
from onestage.types import Scope, Target


@final
@spec
class Scores:
    """A softmax over the values of a guess against another classifier's scores."""

    form: Literal["hard", "soft"] = "hard"
    """Its best category alone, or how likely it finds each."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    """tau of `soft`: DeiT's."""
    kind: Literal["scores"] = "scores"

    @property
    def scope(self) -> Scope:
        """A sample's loss does not depend on the other samples."""
        return "sample"

    def build(self, width: int | None = None) -> ScoresLikelihood:
        """The loss module, for `width` categories."""
        return ScoresLikelihood(self, width or 0)


@final
class ScoresLikelihood(Likelihood):
    """Averages over the rows that count."""

    scope: Scope = "sample"

    def __init__(self, wanted: Scores, categories: int) -> None:
        super().__init__()
        self.form, self.temperature, self.categories = wanted.form, wanted.temperature, categories

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32. `target.rows` has the other classifier's scores, of shape (b, m, k)."""
        with full_precision(guess):
            own, other = at_least_fp32(guess), at_least_fp32(target.rows)
            if self.form == "hard":
                losses = -own.log_softmax(dim=-1).gather(-1, other.argmax(dim=-1, keepdim=True)).squeeze(-1)
            else:
                tau = self.temperature
                told, said = (other / tau).log_softmax(dim=-1), (own / tau).log_softmax(dim=-1)
                losses = tau**2 * functional.kl_div(said, told, reduction="none", log_target=True).sum(dim=-1)
            return weighted_mean(losses, target.weight)

    def candidates(self, target: Target) -> int:
        """The categories; a divergence bounds nothing."""
        return self.categories if self.form == "hard" else 0

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""
