"""LARS (You et al., arXiv:1708.03888): momentum whose step is rescaled for each tensor by a trust ratio.

As BYOL (arXiv:2006.07733), Barlow Twins (arXiv:2103.03230) and MoCo v3 (arXiv:2104.02057) use it: with a gradient g, a
decay of lambda, a momentum of m and eta,

    u = g + lambda x;    trust = eta |x| / |u|;    v <- m v + trust u;    x <- x - lr v.

Vectors (biases, and what a norm multiplies by) are not adapted: their trust is 1. It is also 1 where a norm is 0. The
paper's own algorithm 1 divides by |g| + lambda |x| instead, as timm's Lars does, which besides adapts vectors or leaves
what does not decay alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final, overload

import torch
from torch import Tensor


@final
class Lars(torch.optim.Optimizer):
    """Groups hold `lr`, `betas` (of which the first is the momentum), `eta` and `weight_decay`.

    The state of a parameter, `exp_avg`, must be set before the first step. Nothing here waits for the device.
    """

    def __init__(self, groups: Iterable[dict[str, object]]) -> None:
        super().__init__(list(groups), {})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: object) -> float: ...
    @torch.no_grad()
    def step(self, closure: object = None) -> float | None:
        """Update every parameter that has a gradient. There is no closure: it is torch's signature only."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._direction(parameter, group["weight_decay"], group["eta"])
                    velocity = self.state[parameter]["exp_avg"]
                    velocity.mul_(group["betas"][0]).add_(update)
                    parameter.add_(velocity, alpha=-group["lr"])
        return None

    def _direction(self, parameter: Tensor, decay: float, eta: float) -> Tensor:
        """The gradient with the decay in it, and as long as the tensor is, times eta, unless it is a vector."""
        assert parameter.grad is not None
        update = parameter.grad.add(parameter, alpha=decay)
        if parameter.ndim <= 1:
            return update
        ours, theirs = parameter.norm(), update.norm()
        return update.mul_(torch.where((ours > 0) & (theirs > 0), eta * ours / theirs, torch.ones_like(ours)))
