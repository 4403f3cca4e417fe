"""The Boltzmann likelihood whose candidates are the targets of the batch.

With logits l_ij = scale * guess_i . target_j, candidates C_i and positives P_i inside C_i, a row costs

    -mean over j in P_i of log softmax_{C_i}(l_i)_j  =  logsumexp_{j in C_i} l_ij - mean_{j in P_i} l_ij,

which is CLIP's loss (arXiv:2103.00020) when P_i = {i} and C_i is the batch, and UniCL's soft target
(arXiv:2204.03610) when P_i holds every equal text.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.spec import UserError
from onestage.types import Scope, Target

SameText = Literal["positive", "ignore", "negative"]
Sides = Literal["both", "guess"]


class Pairs(NamedTuple):
    """Which candidates a row has (None: the whole batch), and which are its positives (None: its partner).

    A row's own partner is always both. Both relations read the same from the guesses and from the targets.
    """

    candidate: Bool[Tensor, "b b"] | None
    positive: Bool[Tensor, "b b"] | None


@final
class BatchLikelihood(Tempered):
    """InfoNCE between one guess and one target row of every sample; the batch given is the whole batch.

    A row of weight 0 is left out altogether: it is not counted, and it is nobody's negative.
    """

    scope: Scope = "batch"

    def __init__(self, temper: Temper, same_text: SameText, sides: Sides) -> None:
        super().__init__(temper)
        self.same_text: SameText = same_text
        self.sides: Sides = sides

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when there is not exactly one guess and one target row per sample.
        """
        if guess.shape != target.rows.shape or guess.shape[1] != 1:
            raise UserError(
                "a boltzmann likelihood over the batch takes one row per sample (rows: pooled): the guess "
                f"has shape {tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            logits = self.logits(guess[:, 0], target.rows[:, 0])
            pairs = pair_up(target, self.same_text)
            losses = surprise(logits, pairs)
            if self.sides == "both":
                losses = (losses + surprise(logits.T, pairs)) / 2
            return weighted_mean(losses.unsqueeze(1), target.weight)

    def candidates(self, target: Target) -> int:
        """The targets of the batch."""
        return target.rows.shape[0]

    def after_step(self) -> None:
        """Clamp a learned temperature."""
        self.clamp()

    def after_skip(self) -> None:
        """Nothing to forget."""


def pair_up(target: Target, same_text: SameText) -> Pairs:
    """Candidates and positives from equal identities and from rows of weight 0."""
    weight, identity = target.weight, target.identity
    own = torch.eye(target.rows.shape[0], dtype=torch.bool, device=target.rows.device)
    counted = None if weight is None else (weight[:, 0] > 0).expand_as(own) | own
    if identity is None or same_text == "negative":
        return Pairs(counted, None)
    alike = identity.unsqueeze(0) == identity.unsqueeze(1)
    if same_text == "ignore":
        others = ~alike | own
        return Pairs(others if counted is None else others & counted, None)
    return Pairs(counted, alike if counted is None else alike & counted)


def surprise(logits: Float[Tensor, "b b"], pairs: Pairs) -> Float[Tensor, " b"]:
    """-log P of each row's positives, averaged over them."""
    kept = logits if pairs.candidate is None else logits.masked_fill(~pairs.candidate, -torch.inf)
    if pairs.positive is None:
        return kept.logsumexp(dim=1) - logits.diagonal()
    hits = logits.masked_fill(~pairs.positive, 0.0).sum(dim=1) / pairs.positive.sum(dim=1)
    return kept.logsumexp(dim=1) - hits
