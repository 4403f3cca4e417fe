"""The Boltzmann likelihood whose candidates are the targets of the batch.

With logits l_ij = scale * guess_i . target_j, candidates C_i and positives P_i inside C_i, a row costs

    -mean over j in P_i of log softmax_{C_i}(l_i)_j  =  logsumexp_{j in C_i} l_ij - mean_{j in P_i} l_ij,

which is CLIP's loss (arXiv:2103.00020) when P_i = {i} and C_i is the batch, and UniCL's soft target
(arXiv:2204.03610) when P_i holds every equal text.

Where several processes train, the batch is that of all of them: each compares its own rows with the rows of all, which
takes memory for (own rows) x (batch) logits, and returns the mean over its own. Loss and gradients are those of a
single process.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from onestage.distributed import gather, rank, world
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.ops import at_least_fp32
from onestage.spec import UserError
from onestage.types import Scope, Target

SameText = Literal["positive", "ignore", "negative"]
Sides = Literal["both", "guess"]


class Pairs(NamedTuple):
    """Which candidates each own row has (None: the whole batch), and which are its positives (None: its partner).

    A row's own partner is always both. Both relations read the same from the guesses and from the targets.
    """

    candidate: Bool[Tensor, "b all"] | None
    positive: Bool[Tensor, "b all"] | None


@final
class BatchLikelihood(Tempered):
    """InfoNCE between one guess and one target row of every sample; the candidates are those of the whole batch.

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
        one_row(guess, target, "boltzmann")
        with full_precision(guess):
            # Gathered in full precision: the gradients of a row add up over ranks.
            guesses, targets = at_least_fp32(guess[:, 0]), at_least_fp32(target.rows[:, 0])
            logits = self.logits(guesses, gather(targets))
            pairs = pair_up(target, self.same_text)
            losses = surprise(logits, pairs)
            if self.sides == "both":
                back = logits.T if world() == 1 else self.logits(targets, gather(guesses))
                losses = (losses + surprise(back, pairs)) / 2
            return weighted_mean(losses.unsqueeze(1), target.weight)

    def candidates(self, target: Target) -> int:
        """The targets of the global batch."""
        return target.rows.shape[0] * world()

    def after_step(self) -> None:
        """Clamp a learned temperature."""
        self.clamp()

    def after_skip(self) -> None:
        """Nothing to forget."""


def one_row(guess: Float[Tensor, "b m k"], target: Target, kind: str) -> None:
    """Refuse more than one guess and one target row per sample.

    Raises:
        UserError: with both shapes.
    """
    if guess.shape != target.rows.shape or guess.shape[1] != 1:
        raise UserError(
            f"a {kind} likelihood over the batch takes one row per sample (rows: pooled): the guess "
            f"has shape {tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
        )


def pair_up(target: Target, same_text: SameText) -> Pairs:
    """Candidates and positives from equal identities and from rows of weight 0."""
    weight, identity = target.weight, target.identity
    own = partners(target.rows.shape[0], target.rows.device)
    counted = None if weight is None else gather(weight[:, 0] > 0).expand_as(own) | own
    if identity is None or same_text == "negative":
        return Pairs(counted, None)
    alike = identity.unsqueeze(1) == gather(identity).unsqueeze(0)
    if same_text == "ignore":
        others = ~alike | own
        return Pairs(others if counted is None else others & counted, None)
    return Pairs(counted, alike if counted is None else alike & counted)


def partners(count: int, device: torch.device) -> Bool[Tensor, "b all"]:
    """Where in the batch of all ranks the partners of this rank's rows stand."""
    own = torch.arange(count, device=device) + rank() * count
    return own.unsqueeze(1) == torch.arange(count * world(), device=device)


def surprise(logits: Float[Tensor, "b all"], pairs: Pairs) -> Float[Tensor, " b"]:
    """-log P of each row's positives, averaged over them."""
    kept = logits if pairs.candidate is None else logits.masked_fill(~pairs.candidate, -torch.inf)
    if pairs.positive is None:
        return kept.logsumexp(dim=1) - logits.diagonal(rank() * logits.shape[0])
    hits = logits.masked_fill(~pairs.positive, 0.0).sum(dim=1) / pairs.positive.sum(dim=1)
    return kept.logsumexp(dim=1) - hits
