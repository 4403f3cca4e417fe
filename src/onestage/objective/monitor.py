"""What is watched of a term beside its loss: whether its targets collapse, and the bound of M3I's equation 1."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.distributed import mean
from onestage.layers.normalise import unit
from onestage.likelihood import CategoricalLikelihood, ScoresLikelihood
from onestage.roles import Likelihood
from onestage.types import Target

COLLAPSED = 0.02
"""Below this spread the targets of a term are alike but for noise."""


@torch.no_grad()
def watched(name: str, likelihood: Likelihood, target: Target, loss: Float[Tensor, ""]) -> dict[str, Tensor]:
    """`spread/TERM` of targets that an encoder made, and `bound/TERM` of a likelihood over candidates.

    The bound is that of eq. 1 in nats: the entropy of uniform candidates, ln of their number, minus the cross-entropy.
    """
    found = {}
    if target.rows.ndim == 3 and not isinstance(likelihood, (CategoricalLikelihood, ScoresLikelihood)):
        found[f"spread/{name}"] = spread(target.rows)
    candidates = likelihood.candidates(target)
    if candidates > 1:
        found[f"bound/{name}"] = math.log(candidates) - loss.detach()
    return found


def spread(rows: Float[Tensor, "b m k"]) -> Float[Tensor, ""]:
    """Standard deviation of unit rows over the global batch, times sqrt(k): near 1 for directions at random, 0 when all
    samples have the same targets."""
    directions = unit(rows)
    centre = mean(directions.mean(dim=0, keepdim=True))
    return mean((directions - centre).square().mean()).sqrt() * math.sqrt(rows.shape[-1])
