"""One optimisation step: teachers answer, the objective represents and scores, and the update is committed or skipped.

A non-finite loss or gradient, on any rank, skips the step on all of them and leaves every parameter, average and
buffer as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from onestage.distributed import Reducer, mean, statistics, total, world
from onestage.engine.accumulate import looks_at_batch, slopes, weighs
from onestage.engine.optimiser import Optimisers
from onestage.engine.pieces import split
from onestage.engine.together import for_all
from onestage.objective import Ask, Objective, asks, shares
from onestage.types import Batch, Losses, Represented, Tokens

Precision = Literal["fp32", "bf16"]
Answer = Callable[[Ask, Batch], Tokens]
"""A frozen teacher's tokens for a view of the batch."""

MAX_SKIPPED = 5
"""Stop after so many skipped steps in a row: the run has diverged."""


class Stepped(NamedTuple):
    """What a step reports: its losses over all ranks, the gradient norm, and whether it was skipped."""

    losses: Losses
    norm: Tensor
    skipped: bool


@final
class Step:
    """The training step of a run.

    Args:
        accumulate: pieces that each rank's batch is cut into, to hold the activations of one piece at a time. Where
            every likelihood looks at single samples, pieces go forward and backward one by one. Where one looks at
            the batch, or counts rows by weights, a first pass without gradients keeps the guesses and targets of all
            pieces, the losses of the whole batch give the gradients of these, and a second pass carries them on:
            twice the encoding, and the gradient of the undivided batch. A network's batch norm sees single pieces
            either way, so with batch norm neither is that of the undivided batch; its running statistics move once
            for each piece.
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
        self.objective, self.optimisers, self.answer = objective, optimisers, answer
        self.precision, self.accumulate, self.device = precision, accumulate, device
        self.asks = asks(objective.method)
        self.skipped = 0
        self._reducer = Reducer(objective)
        self._statistics = statistics(objective)
        self._two_passes: bool | None = None

    def __call__(self, batch: Batch, step: int, total: int) -> Stepped:
        """Step number `step` of `total`, counted from 0; `batch` is this rank's."""
        before = [buffer.clone() for buffer in self._statistics]
        self.optimisers.zero_grad()
        losses = everywhere(self._backward(split(batch, self.accumulate), before))
        products = summed(self.objective.taps.read())
        losses = losses._replace(watched=losses.watched | shares(products))
        norm = self.optimisers.clip()
        if not bool(torch.isfinite(norm) & torch.isfinite(losses.total)):
            self._undo(before, losses)
            return Stepped(losses, norm, skipped=True)
        self.skipped = 0
        self.optimisers.step()
        self.objective.after_step(step, total, products)
        return Stepped(losses, norm, skipped=False)

    @torch.no_grad()
    def measure(self, batch: Batch) -> Losses:
        """The losses of a batch over all ranks, without learning from it; the objective's mode is the caller's."""
        return everywhere(self.objective.score(self._represent(batch, self._ask(batch))))

    def _backward(self, pieces: list[Batch], before: list[Tensor]) -> Losses:
        if len(pieces) > 1 and self._two_passes is None:
            self._two_passes = looks_at_batch(self.objective) or self._weighed(pieces[0], before)
        if len(pieces) > 1 and self._two_passes:
            return self._in_two_passes(pieces, before)
        last = len(pieces) - 1
        return mean_losses([self._in_one_pass(piece, len(pieces), i == last) for i, piece in enumerate(pieces)])

    def _in_one_pass(self, piece: Batch, pieces: int, last: bool) -> Losses:
        answers = self._ask(piece)
        losses = self.objective.score(self._represent(piece, answers))
        if last:
            self._reducer.expect([losses.total])
        (losses.total / pieces).backward()
        self.objective.taps.settle()
        return detached(losses)

    def _in_two_passes(self, pieces: list[Batch], before: list[Tensor]) -> Losses:
        seeds = [int(seed) for seed in torch.randint(2**31, (len(pieces),))]
        answered = [self._ask(piece) for piece in pieces]
        kept = []
        for piece, answers, seed in zip(pieces, answered, seeds, strict=True):
            torch.manual_seed(seed)  # of drop path, for both passes
            with torch.no_grad():
                kept.append(self._represent(piece, answers))
        restore(self._statistics, before)
        losses, found = slopes(self.objective, kept)
        for piece, answers, seed, slope in zip(pieces, answered, seeds, found, strict=True):
            torch.manual_seed(seed)
            rows = slope.wanted(self._represent(piece, answers))
            if slope is found[-1]:
                self._reducer.expect(rows.values())
            torch.autograd.backward(list(rows.values()), [slope.gradients[name] for name in rows])
            self.objective.taps.settle()
        return detached(losses)

    def _weighed(self, piece: Batch, before: list[Tensor]) -> bool:
        """Whether rows are counted by weights: asked once, since pieces then need one normaliser."""
        devices = [self.device.index or torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            found = weighs(self._represent(piece, self._ask(piece)))
        restore(self._statistics, before)
        return found

    def _ask(self, batch: Batch) -> dict[Ask, Tokens]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return {ask: self.answer(ask, batch) for ask in self.asks}

    def _represent(self, batch: Batch, answers: dict[Ask, Tokens]) -> Represented:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.objective.represent(batch, answers)

    def _undo(self, before: list[Tensor], losses: Losses) -> None:
        restore(self._statistics, before)
        self.optimisers.zero_grad()
        self.objective.after_skip()
        self.skipped += 1
        if self.skipped >= MAX_SKIPPED:
            terms = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.terms.items())
            raise for_all(
                f"the loss or its gradient was not finite {MAX_SKIPPED} steps in a row (last losses: {terms}); "
                "nothing of these steps was kept. Lower the learning rate, or look at the data of the last steps."
            )


def mean_losses(pieces: list[Losses]) -> Losses:
    """The mean over equal pieces of a batch."""

    def each(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}

    whole = torch.stack([piece.total for piece in pieces]).mean()
    return Losses(whole, each([piece.terms for piece in pieces]), each([piece.watched for piece in pieces]))


def everywhere(losses: Losses) -> Losses:
    """The mean over ranks: the losses of the global batch, and not finite for all where they are not for one."""
    if world() == 1:
        return losses
    mine = [losses.total, *losses.terms.values(), *losses.watched.values()]
    whole, *rest = mean(torch.stack([value.to(losses.total.dtype) for value in mine])).unbind()
    terms = dict(zip(losses.terms, rest, strict=False))
    return Losses(whole, terms, dict(zip(losses.watched, rest[len(terms) :], strict=True)))


def summed(products: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
    """The inner products of gradients over the global batch."""
    if world() == 1 or not products:
        return products
    return dict(zip(products, total(torch.stack(list(products.values()))).unbind(), strict=True))


def detached(losses: Losses) -> Losses:
    """The same numbers, without what they came from."""
    terms = {name: loss.detach() for name, loss in losses.terms.items()}
    return Losses(losses.total.detach(), terms, losses.watched)


def restore(buffers: list[Tensor], before: list[Tensor]) -> None:
    """Running statistics as they were."""
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)
