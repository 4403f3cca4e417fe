"""What Boltzmann and sigmoid likelihoods share: a temperature, learned as CLIP learns it or fixed, and unit rows."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.normalise import unit
from onestage.ops import at_least_fp32
from onestage.roles import Likelihood

HowSet = Literal["learned", "fixed"]
Normed = Literal["both", "none"]


@dataclass(frozen=True, kw_only=True)
class Temper:
    """The temperature at the start, how it is set, how far learning may go, and which rows become unit."""

    temperature: float
    how: HowSet
    max_scale: float
    normalise: Normed


class Tempered(Likelihood, ABC):
    """Logits are exp(log_scale) * guess . candidate. Learned or fixed, it is saved: zero-shot needs it.

    `clamp` keeps a learned scale in [1, max_scale] as CLIP does (arXiv:2103.00020, section 2.5). It
    acts on the parameter after the step and not on its value in the forward pass, where it would stop
    the gradient too and leave the scale at the limit for good.
    """

    log_scale: Tensor

    def __init__(self, temper: Temper) -> None:
        super().__init__()
        # One element and not none: fully sharded training cannot shard a number without axes.
        start = torch.full((1,), -math.log(temper.temperature))
        if temper.how == "learned":
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)
        self.temper = temper

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep a learned scale in its limits, in place; a fixed one stays as it is."""
        if self.temper.how == "learned":
            self.log_scale.clamp_(0.0, math.log(self.temper.max_scale))

    def logits(self, rows: Float[Tensor, "*b k"], candidates: Float[Tensor, "c k"]) -> Float[Tensor, "*b c"]:
        """Scaled inner products in at least fp32; to be called where autocast is off."""
        rows, candidates = at_least_fp32(rows), at_least_fp32(candidates)
        if self.temper.normalise == "both":
            rows, candidates = unit(rows), unit(candidates)
        return at_least_fp32(self.log_scale).exp() * (rows @ candidates.T)
