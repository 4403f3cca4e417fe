"""The Boltzmann likelihood whose wrong candidates are a queue of earlier targets (MoCo, arXiv:1911.05722).

The right candidate of a row is its own target row. Where a sample has rows for its cells, what the queue keeps of it is
one row, the pooled one (DenseCL, arXiv:2011.09157, section 3.3). The targets of a step enter the queue once the step is
committed, so the queue of a step holds none of its own, and a skipped step leaves no trace.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.distributed import gather
from onestage.layers.normalise import unit
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.ops import at_least_fp32
from onestage.spec import UserError
from onestage.types import Scope, Target


@final
class QueueLikelihood(Tempered):
    """InfoNCE of each guess and its target row, against `size` earlier targets, the oldest leaving first.

    The queue starts with random directions, as MoCo's does. It is saved with the run.
    """

    scope: Scope = "sample"
    queue: Tensor
    start: Tensor

    def __init__(self, temper: Temper, size: int, width: int) -> None:
        super().__init__(temper)
        self.register_buffer("queue", unit(torch.randn(size, width)))
        self.register_buffer("start", torch.zeros(1, dtype=torch.int64))
        self._pending: list[Tensor] = []

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when guess and target differ in shape, or rows of cells come without a row for the queue.
        """
        cells = guess.shape[1] != 1
        if guess.shape != target.rows.shape or (cells and target.whole is None):
            raise UserError(
                "a boltzmann likelihood over a queue takes a target row for each guess, and of an encoder's cells its "
                f"pooled row too: the guess has shape {tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            rows, right = self._normed(guess), self._normed(target.rows)
            if torch.is_grad_enabled():
                kept = right[:, 0] if target.whole is None or not cells else self._normed(target.whole)
                self._pending.append(gather(kept.detach()))
            scale = at_least_fp32(self.log_scale).exp()
            wrong = rows @ self.queue.to(rows.dtype).T
            logits = scale * torch.cat([(rows * right).sum(dim=2, keepdim=True), wrong], dim=2)
            truth = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
            losses = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
            return weighted_mean(losses.view(truth.shape), target.weight)

    def _normed(self, rows: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        rows = at_least_fp32(rows)
        return unit(rows) if self.temper.normalise == "both" else rows

    def candidates(self, target: Target) -> int:
        """A row's own target and the queue."""
        return 1 + self.queue.shape[0]

    @torch.no_grad()
    def after_step(self) -> None:
        """The targets of the step enter the queue."""
        self.clamp()
        size = self.queue.shape[0]
        for keys in self._pending:
            last = keys[-size:]
            first = self.start + len(keys) - len(last)
            places = (first + torch.arange(len(last), device=keys.device)) % size
            self.queue[places] = last.to(self.queue.dtype)
            self.start.add_(len(keys)).remainder_(size)
        self._pending.clear()

    def after_skip(self) -> None:
        """The targets of a skipped step are forgotten."""
        self._pending.clear()
