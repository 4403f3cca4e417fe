"""The Boltzmann likelihood whose wrong candidates are a queue of earlier targets (MoCo, arXiv:1911.05722).

The right candidate is the sample's own target. The targets of a step enter the queue once the step is committed, so
the queue of a step holds none of its own, and a skipped step leaves no trace.
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
    """InfoNCE of one guess and one target row a sample, against `size` earlier targets, the oldest leaving first.

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
            UserError: when there is not exactly one guess and one target row per sample.
        """
        if guess.shape != target.rows.shape or guess.shape[1] != 1:
            raise UserError(
                "a boltzmann likelihood over a queue takes one row per sample (rows: pooled): the guess has shape "
                f"{tuple(guess.shape)}, the target {tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            rows, keys = at_least_fp32(guess[:, 0]), at_least_fp32(target.rows[:, 0])
            if self.temper.normalise == "both":
                rows, keys = unit(rows), unit(keys)
            if torch.is_grad_enabled():
                self._pending.append(gather(keys.detach()))
            scale = at_least_fp32(self.log_scale).exp()
            right = (rows * keys).sum(dim=1, keepdim=True)
            logits = scale * torch.cat([right, rows @ self.queue.to(rows.dtype).T], dim=1)
            losses = functional.cross_entropy(logits, logits.new_zeros(len(logits)).long(), reduction="none")
            return weighted_mean(losses.unsqueeze(1), target.weight)

    def candidates(self, target: Target) -> int:
        """A sample's own target and the queue."""
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
