"""The Boltzmann likelihood whose candidates are the rows of the same image's target.

Dense instance discrimination as M3I sorts it (arXiv:2211.09807, table 1): each guessed row has to tell its own cell
from the other cells of the target view.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.layers.normalise import unit
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.ops import at_least_fp32
from onestage.spec import UserError
from onestage.types import Scope, Target


@final
class TokensLikelihood(Tempered):
    """Row i of a sample's guess against all rows of its target; row i is the right one."""

    scope: Scope = "sample"

    def __init__(self, temper: Temper) -> None:
        super().__init__(temper)

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when guess and target differ in shape, or a sample has a single row.
        """
        if guess.shape != target.rows.shape or guess.shape[1] < 2:
            raise UserError(
                "a boltzmann likelihood over tokens tells the rows of one target apart: it takes two rows a sample at "
                f"least; the guess has shape {tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            rows, candidates = at_least_fp32(guess), at_least_fp32(target.rows)
            if self.temper.normalise == "both":
                rows, candidates = unit(rows), unit(candidates)
            logits = at_least_fp32(self.log_scale).exp() * (rows @ candidates.transpose(1, 2))
            truth = torch.arange(guess.shape[1], device=guess.device).expand(guess.shape[:2])
            losses = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
            return weighted_mean(losses.view(guess.shape[:2]), target.weight)

    def candidates(self, target: Target) -> int:
        """The rows of a sample's target."""
        return target.rows.shape[1]

    def after_step(self) -> None:
        """Clamp a learned temperature."""
        self.clamp()

    def after_skip(self) -> None:
        """Nothing to forget."""
