"""The categorical likelihood: a softmax over the values of a guess, one for each code (BEiT, arXiv:2106.08254, eq. 4).

M3I's table (arXiv:2211.09807) reads these rows as Gaussian; what BEiT, PeCo and BEiT v2 publish is a cross-entropy.
"""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.likelihood.average import full_precision, weighted_mean
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood
from onestage.spec import spec
from onestage.types import Scope, Target


@final
@spec
class Categorical:
    """Cross-entropy of a guess with as many values as there are codes; a target row is the number of one."""

    kind: Literal["categorical"] = "categorical"

    @property
    def scope(self) -> Scope:
        """A sample's loss does not depend on the other samples."""
        return "sample"

    def build(self, width: int | None = None) -> CategoricalLikelihood:
        """The loss module, for `width` codes."""
        return CategoricalLikelihood(width or 0)


@final
class CategoricalLikelihood(Likelihood):
    """Averages over the rows that count."""

    scope: Scope = "sample"

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32. `target.rows` has shape (b, m, 1)."""
        with full_precision(guess):
            numbers = target.rows[..., 0].long()
            losses = functional.cross_entropy(at_least_fp32(guess).flatten(0, 1), numbers.flatten(), reduction="none")
            return weighted_mean(losses.view(numbers.shape), target.weight)

    def candidates(self, target: Target) -> int:
        """The codes."""
        return self.codes

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""
