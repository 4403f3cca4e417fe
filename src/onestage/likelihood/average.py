"""What every likelihood does with the losses of its rows: the weighted mean, in full precision.

Where several processes train, each returns its own rows' share, so that the mean over ranks is the mean over all rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.distributed import mean
from onestage.ops import at_least_fp32


def weighted_mean(losses: Float[Tensor, "b m"], weight: Float[Tensor, "b m"] | None) -> Float[Tensor, ""]:
    """sum(weight * loss) / sum(weight), every weight being 1 where there is none; 0 when no row counts.

    Both sums are over the rows of all ranks: with weights w and losses l, rank r of W returns
    W sum_r(w l) / sum(w), whose mean over ranks is the weighted mean of the global batch, however the weights lie.
    """
    if weight is None:
        return losses.mean()
    weight = at_least_fp32(weight)
    normaliser = mean(weight.sum()).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight * losses).sum() / normaliser


def full_precision(like: Tensor) -> torch.autocast:
    """Switches autocast off: it would make the matrix products of a loss bf16, whatever their inputs are."""
    return torch.autocast(device_type=like.device.type, enabled=False)
