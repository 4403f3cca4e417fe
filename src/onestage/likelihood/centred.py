"""DINO's likelihood (arXiv:2104.14294, eq. 1 to 4): a soft choice among codes explains another soft choice among them.

With guesses s and targets t of K values, and a centre c of the targets,

    L = -sum_k softmax((t - c) / target_temperature)_k log softmax(s / temperature)_k,
    c <- momentum c + (1 - momentum) mean of t over the batch of all ranks, after the step.

Under M3I's eq. 1 it is a Boltzmann likelihood over K codes. Centring keeps one code from taking all targets, and
sharpening (the smaller temperature of the target) keeps them from becoming uniform.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from onestage.distributed import mean
from onestage.likelihood.average import full_precision, weighted_mean
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood, Scheduled
from onestage.spec import UserError, spec
from onestage.types import Scope, Target

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@final
@spec
class Centred:
    """Cross-entropy between soft choices among codes, the target's centred and sharpened."""

    temperature: Temperature = 0.1
    target_temperature: Temperature = 0.04
    target_start: Temperature | None = None
    """The target's temperature at first; from there it runs in a line to `target_temperature`. None: no warm-up."""
    target_warmup: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the run's steps after which it is there."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of the centre."""
    kind: Literal["centred"] = "centred"

    def __post_init__(self) -> None:
        if (self.target_start is None) != (self.target_warmup == 0):
            raise ValueError("target_start and target_warmup go together: give both, or leave both out")

    @property
    def scope(self) -> Scope:
        """The centre is that of earlier steps, so a sample's loss does not depend on the other samples."""
        return "sample"

    @property
    def regulariser(self) -> Literal["centring"]:
        """What keeps the targets spread."""
        return "centring"

    def build(self, width: int | None = None) -> CentredLikelihood:
        """The loss module, for `width` codes."""
        assert width is not None, "a centre is as wide as the targets"
        return CentredLikelihood(self, width)


@final
class CentredLikelihood(Likelihood, Scheduled):
    """The centre is saved with the run, and how far that is."""

    scope: Scope = "sample"
    centre: Tensor
    progress: Tensor

    def __init__(self, wanted: Centred, width: int) -> None:
        super().__init__()
        self.wanted = wanted
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("progress", torch.zeros(1))
        self._pending: list[Tensor] = []

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when guess and target differ in shape.
        """
        if guess.shape != target.rows.shape:
            raise UserError(
                f"centred compares row with row: the guess has shape {tuple(guess.shape)}, the target "
                f"{tuple(target.rows.shape)}"
            )
        with full_precision(guess):
            rows = at_least_fp32(target.rows.detach())
            if torch.is_grad_enabled():
                self._pending.append(mean(rows.flatten(0, 1).mean(dim=0)))
            chosen = ((rows - self.centre) / self.target_temperature()).softmax(dim=-1)
            surprise = -(at_least_fp32(guess) / self.wanted.temperature).log_softmax(dim=-1)
            return weighted_mean((chosen * surprise).sum(dim=-1), target.weight)

    def candidates(self, target: Target) -> int:
        """The codes."""
        return target.rows.shape[-1]

    def target_temperature(self) -> Tensor | float:
        """The target's temperature at this step."""
        start, end = self.wanted.target_start, self.wanted.target_temperature
        if start is None:
            return end
        return start + (end - start) * (self.progress / self.wanted.target_warmup).clamp_max(1.0)

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """The target's temperature follows the run."""
        self.progress.fill_(progress)

    @torch.no_grad()
    def after_step(self) -> None:
        """The centre follows the targets of the step, all terms that share it counting alike."""
        if self._pending:
            found = torch.stack(self._pending).mean(dim=0).to(self.centre.dtype)
            self.centre.lerp_(found, 1 - self.wanted.momentum)
        self._pending.clear()

    def after_skip(self) -> None:
        """The targets of a skipped step are forgotten."""
        self._pending.clear()
