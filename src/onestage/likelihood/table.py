"""The Boltzmann likelihood whose candidates are the rows of a table: softmax cross-entropy.

Label smoothing: arXiv:1512.00567, section 7.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.spec import UserError
from onestage.types import Scope, Target


@final
class TableLikelihood(Tempered):
    """Every guessed row of a sample against all rows of the table; `Target.identity` says which is right."""

    scope: Scope = "sample"

    def __init__(self, temper: Temper, smoothing: float) -> None:
        super().__init__(temper)
        self.smoothing = smoothing

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when the target is not a table, or has no labels.
        """
        if target.rows.ndim != 2 or target.identity is None:
            raise UserError(
                "a boltzmann likelihood over a table takes a table target, rows of shape (classes, k) and "
                f"one label per sample; this target has rows of shape {tuple(target.rows.shape)} and "
                f"{'no' if target.identity is None else 'its'} labels"
            )
        with full_precision(guess):
            logits = self.logits(guess, target.rows)
            losses = self._against(logits, target.identity)
            if target.blend is not None:  # the cross-entropy of a mixture of two truths is the mixture of their own
                share = target.blend.share.unsqueeze(1)
                losses = share * losses + (1 - share) * self._against(logits, target.blend.label)
            return weighted_mean(losses, target.weight)

    def _against(self, logits: Float[Tensor, "b m classes"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b m"]:
        truth = labels.unsqueeze(1).expand(logits.shape[:2])
        losses = functional.cross_entropy(
            logits.flatten(0, 1), truth.flatten().long(), reduction="none", label_smoothing=self.smoothing
        )
        return losses.view(logits.shape[:2])

    def candidates(self, target: Target) -> int:
        """The rows of the table."""
        return target.rows.shape[0]

    def after_step(self) -> None:
        """Clamp a learned temperature."""
        self.clamp()

    def after_skip(self) -> None:
        """Nothing to forget."""
