"""What every likelihood does with the losses of its rows: the weighted mean, in full precision."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_mean(losses: Float[Tensor, "b m"], weight: Float[Tensor, "b m"] | None) -> Float[Tensor, ""]:
    """sum(weight * loss) / sum(weight), every weight being 1 where there is none; 0 when no row counts."""
    if weight is None:
        return losses.mean()
    weight = weight.float()
    return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def full_precision(like: Tensor) -> torch.autocast:
    """Switches autocast off: it would make the matrix products of a loss bf16, whatever their inputs are."""
    return torch.autocast(device_type=like.device.type, enabled=False)
