"""EMA encoders: their momentum over a run, and the update."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from onestage.distributed import SyncBatchNorm
from onestage.objective.declare import Ema

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, SyncBatchNorm)


def momentum(role: Ema, step: int, total: int) -> float:
    """The EMA momentum committed after optimiser step `step`: a cosine or a line from `momentum` to `end`.

    An update before the forward pass of step t + 1 sees the same weights as one after the optimiser's step t; it only
    reads its schedule one step later. So both are committed after the step, and a skipped step commits neither.
    """
    reached = step + 1 if role.when == "before" else step
    progress = min(reached / max(total * role.over, 1), 1.0)
    if role.path == "line":
        return role.momentum + (role.end - role.momentum) * progress
    return role.end - (role.end - role.momentum) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def average(
    slow: nn.Module, fast: nn.Module, momentum: float, buffers: Literal["copy", "average", "own"] = "copy"
) -> None:
    """slow <- m slow + (1 - m) fast, in place; integer buffers are always copied, `own` keeps those of batch norms."""
    for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
        old.lerp_(new.detach(), 1 - momentum)
    for module, other in zip(slow.modules(), fast.modules(), strict=True):
        if buffers == "own" and isinstance(module, BATCH_NORMS):
            continue
        for old, new in zip(module.buffers(recurse=False), other.buffers(recurse=False), strict=True):
            if buffers == "average" and old.is_floating_point():
                old.lerp_(new, 1 - momentum)
            else:
                old.copy_(new)


def averaging_mode(slow: nn.Module, buffers: Literal["copy", "average", "own"]) -> None:
    """An average while it trains: evaluation mode (no drop path), but batch norms with statistics of their own
    normalise by the batch, as the student's do."""
    slow.eval()
    for module in slow.modules():
        if buffers == "own" and isinstance(module, BATCH_NORMS):
            module.train()
