"""EMA encoders: their momentum over a run, and the update."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from onestage.objective.declare import Ema


def momentum(role: Ema, step: int, total: int) -> float:
    """The EMA momentum committed after optimiser step `step`: a cosine from `momentum` to `end` over the run.

    An update before the forward pass of step t + 1 sees the same weights as one after the optimiser's step t; it only
    reads its schedule one step later. So both are committed after the step, and a skipped step commits neither.
    """
    reached = step + 1 if role.when == "before" else step
    progress = min(reached / max(total, 1), 1.0)
    return role.end - (role.end - role.momentum) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def average(slow: nn.Module, fast: nn.Module, momentum: float, buffers: Literal["copy", "average"]) -> None:
    """slow <- m slow + (1 - m) fast, in place; integer buffers are always copied."""
    for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
        old.lerp_(new.detach(), 1 - momentum)
    for old, new in zip(slow.buffers(), fast.buffers(), strict=True):
        if buffers == "average" and old.is_floating_point():
            old.lerp_(new, 1 - momentum)
        else:
            old.copy_(new)
