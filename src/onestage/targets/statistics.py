"""Running mean and deviation of an encoder's rows, so that the losses of several teachers are of one size.

Learning from several teachers, AM-RADIO (arXiv:2312.06709) and UNIC (arXiv:2408.05088) find that the one whose features
vary most takes the student over, and standardise each teacher's features.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.distributed import mean

MOMENTUM = 0.99
SMALLEST = 1e-6


@final
class Statistics(nn.Module):
    """Standardises each value by what is known before the step; the first step by itself. Saved with the run."""

    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(width))
        self.register_buffer("second", torch.zeros(width))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.pending: list[tuple[Tensor, Tensor]] = []

    def forward(self, rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m k"]:
        """Rows with mean 0 and deviation 1 over the stream so far, in fp32."""
        rows = rows.float()
        flat = rows.detach().flatten(0, 1)
        own = mean(flat.mean(dim=0)), mean(flat.square().mean(dim=0))
        if torch.is_grad_enabled():
            self.pending.append(own)
        started = (self.steps > 0).to(rows.dtype)
        first, second = (torch.lerp(new, old, started) for new, old in zip(own, (self.first, self.second), strict=True))
        return (rows - first) / (second - first.square()).clamp_min(SMALLEST).sqrt()

    @torch.no_grad()
    def commit(self) -> None:
        """What the step saw enters the running moments."""
        if not self.pending:
            return
        share = torch.where(self.steps > 0, 1 - MOMENTUM, 1.0)
        for held, seen in zip((self.first, self.second), zip(*self.pending, strict=True), strict=True):
            held.lerp_(torch.stack(list(seen)).mean(dim=0), share)
        self.steps.add_(1)
        self.pending.clear()
