"""One optimisation step: teachers answer, the objective represents and scores, and the update is committed or skipped.

A non-finite loss or gradient skips the step and leaves every parameter, average and buffer as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from onestage.engine.loader import split
from onestage.engine.optimiser import Optimisers
from onestage.objective import Ask, Objective, asks, shares
from onestage.spec import UserError
from onestage.types import Batch, Losses, Tokens

Precision = Literal["fp32", "bf16"]
Answer = Callable[[Ask, Batch], Tokens]
"""A frozen teacher's tokens for a view of the batch."""

MAX_SKIPPED = 5
"""Stop after so many skipped steps in a row: the run has diverged."""


class Stepped(NamedTuple):
    """What a step reports: its losses, the gradient norm, and whether it was skipped."""

    losses: Losses
    norm: Tensor
    skipped: bool


@final
class Step:
    """The training step of a run.

    Args:
        accumulate: pieces a batch is cut into; 1 where any likelihood looks at the whole batch.

    Raises:
        UserError: when accumulation is asked for with a likelihood of batch scope, or does not divide the batch.
    """

    def __init__(
        self,
        objective: Objective,
        optimisers: Optimisers,
        answer: Answer,
        precision: Precision,
        accumulate: int,
        device: torch.device,
    ) -> None:
        check_accumulation(objective, accumulate)
        self.objective, self.optimisers, self.answer = objective, optimisers, answer
        self.precision, self.accumulate, self.device = precision, accumulate, device
        self.asks = asks(objective.method)
        self.skipped = 0
        self._statistics = [
            buffer
            for module in objective.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers()
        ]

    def __call__(self, batch: Batch, step: int, total: int) -> Stepped:
        """Step number `step` of `total`, counted from 0."""
        before = [buffer.clone() for buffer in self._statistics]
        self.optimisers.zero_grad()
        pieces = [self._backward(piece) for piece in split(batch, self.accumulate)]
        products = self.objective.taps.read()
        losses = mean_losses(pieces)
        losses = losses._replace(watched=losses.watched | shares(products))
        norm = self.optimisers.clip()
        if not bool(torch.isfinite(norm) & torch.isfinite(losses.total)):
            self._undo(before, losses)
            return Stepped(losses, norm, skipped=True)
        self.skipped = 0
        self.optimisers.step()
        self.objective.after_step(step, total, products)
        return Stepped(losses, norm, skipped=False)

    def _backward(self, batch: Batch) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            answers = {ask: self.answer(ask, batch) for ask in self.asks}
            represented = self.objective.represent(batch, answers)
        losses = self.objective.score(represented)
        (losses.total / self.accumulate).backward()
        self.objective.taps.settle()
        terms = {name: loss.detach() for name, loss in losses.terms.items()}
        return Losses(losses.total.detach(), terms, losses.watched)

    def _undo(self, before: list[Tensor], losses: Losses) -> None:
        for buffer, old in zip(self._statistics, before, strict=True):
            buffer.copy_(old)
        self.optimisers.zero_grad()
        self.objective.after_skip()
        self.skipped += 1
        if self.skipped >= MAX_SKIPPED:
            terms = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.terms.items())
            raise UserError(
                f"the loss or its gradient was not finite {MAX_SKIPPED} steps in a row (last losses: {terms}); "
                "nothing of these steps was kept. Lower the learning rate, or look at the data of the last steps."
            )


def mean_losses(pieces: list[Losses]) -> Losses:
    """The mean over equal pieces of a batch."""

    def mean(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}

    total = torch.stack([piece.total for piece in pieces]).mean()
    return Losses(total, mean([piece.terms for piece in pieces]), mean([piece.watched for piece in pieces]))


def check_accumulation(objective: Objective, accumulate: int) -> None:
    """Accumulation is exact for likelihoods of sample scope and refused for the others."""
    wide = [name for name in objective.method.terms if objective.likelihood(name).scope == "batch"]
    if accumulate > 1 and wide:
        raise UserError(
            f"accumulate: {accumulate} with term '{wide[0]}': its likelihood compares the samples of the whole batch, "
            "so a loss over pieces would be another loss. Use accumulate: 1 and a smaller batch."
        )
