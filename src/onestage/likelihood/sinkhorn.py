"""Sinkhorn-Knopp: soft choices, brought to use every alternative equally often in the batch of all ranks.

SwAV (arXiv:2006.09882, eq. 4) and MSN (arXiv:2204.07141, section 3): with B rows of choices among K,

    Q <- Q / (sum over the batch of each alternative) / K;    Q <- Q / (sum over alternatives of each row) / B,

a few times over, and B Q in the end, whose rows are choices again.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.distributed import total

_LEAST = torch.finfo(torch.float32).tiny


@torch.no_grad()
def balanced(choices: Float[Tensor, "rows k"], iterations: int) -> Float[Tensor, "rows k"]:
    """The choices after some iterations; with none, as they were. A choice that nothing falls on stays so."""
    for _ in range(iterations):
        choices = choices / total(choices.sum(dim=0, keepdim=True)).clamp_min(_LEAST)
        choices = choices / choices.sum(dim=1, keepdim=True).clamp_min(_LEAST)
    return choices
