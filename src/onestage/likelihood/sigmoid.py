"""SigLIP's likelihood (arXiv:2303.15343, eq. 1): whether a guess and a target belong together, each pair for itself.

With logits l_ij = exp(log_scale) guess_i . target_j + bias and y_ij = 1 where i and j belong together, else -1,

    L = -1/n sum_i sum_j log sigmoid(y_ij l_ij),

the sum over all candidates j of the batch, the mean over its n samples. Under M3I's eq. 1 a pair is a Bernoulli
variable of its own: no sum over candidates has to be known, but they are negatives all the same.

Where several processes train, each compares its own guesses with the targets of all; the sum over pairs, and so loss
and gradients, are those of a single process. The bias starts so low that the many negatives cost nothing at first.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from onestage.distributed import gather
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.contrast import SameText, one_row, pair_up, partners
from onestage.likelihood.tempered import Temper, Tempered
from onestage.ops import at_least_fp32
from onestage.spec import spec
from onestage.types import Scope, Target


@final
@spec
class Sigmoid:
    """A decision for each pair of the batch, with a learned scale and a learned bias."""

    temperature: Annotated[float, Field(gt=0, le=1)] = 0.1
    """1 / scale at the start."""
    bias: Annotated[float, Field(allow_inf_nan=False)] = -10.0
    """At the start; -2.71 suits a batch of 512 (big_vision's example)."""
    max_scale: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 100.0
    """The largest scale that learning may reach: open_clip's limit, big_vision has none."""
    same_text: SameText = "positive"
    """What targets of equal `Target.identity` are to one another: they belong together, are not compared, or are told
    apart as in plain SigLIP."""
    kind: Literal["sigmoid"] = "sigmoid"

    @property
    def scope(self) -> Scope:
        """A sample's loss depends on the others."""
        return "batch"

    @property
    def regulariser(self) -> Literal["negatives"]:
        """What keeps the targets spread."""
        return "negatives"

    def build(self, width: int | None = None) -> SigmoidLikelihood:
        """The loss module; rows of any width."""
        temper = Temper(temperature=self.temperature, how="learned", max_scale=self.max_scale, normalise="both")
        return SigmoidLikelihood(temper, self.bias, self.same_text)


@final
class SigmoidLikelihood(Tempered):
    """One guess and one target row of every sample; a row of weight 0 is left out altogether."""

    scope: Scope = "batch"

    def __init__(self, temper: Temper, bias: float, same_text: SameText) -> None:
        super().__init__(temper)
        self.bias = nn.Parameter(torch.full((1,), bias))
        self.same_text: SameText = same_text

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when there is not exactly one guess and one target row per sample.
        """
        one_row(guess, target, "sigmoid")
        with full_precision(guess):
            guesses, targets = at_least_fp32(guess[:, 0]), at_least_fp32(target.rows[:, 0])
            logits = self.logits(guesses, gather(targets)) + at_least_fp32(self.bias)
            pairs = pair_up(target, self.same_text)
            together = partners(logits.shape[0], logits.device) if pairs.positive is None else pairs.positive
            costs = softplus(torch.where(together, -logits, logits))
            if pairs.candidate is not None:
                costs = costs.masked_fill(~pairs.candidate, 0.0)
            return weighted_mean(costs.sum(dim=1, keepdim=True), target.weight)

    def candidates(self, target: Target) -> int:
        """None: a pair is a decision of its own, which says nothing of eq. 1's bound."""
        return 0

    def after_step(self) -> None:
        """Clamp the scale."""
        self.clamp()

    def after_skip(self) -> None:
        """Nothing to forget."""
