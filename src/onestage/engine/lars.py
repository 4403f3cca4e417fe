"""LARS (You et al., arXiv:1708.03888): momentum whose step is rescaled for each tensor by a trust ratio.

As BYOL (arXiv:2006.07733), Barlow Twins (arXiv:2103.03230) and MoCo v3 (arXiv:2104.02057) use it: with a gradient g, a
decay of lambda, a momentum of m and eta,

    u = g + lambda x;    trust = eta |x| / |u|;    v <- m v + trust u;    x <- x - lr v.

Vectors (biases, and what a norm multiplies by) are not adapted: their trust is 1. It is also 1 where a norm is 0. The
paper's own algorithm 1 divides by |g| + lambda |x| instead, as timm's Lars does, which besides adapts vectors or leaves
what does not decay alone.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from onestage.engine.adapted import Adapted, trust_ratio


@final
class Lars(Adapted):
    """Groups hold `lr`, `betas` (of which the first is the momentum), `eta` and `weight_decay`; the state of a
    parameter is `exp_avg`."""

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Along the velocity, which takes in the gradient with the decay in it, as long as the tensor is, times eta;
        that of a vector as it is."""
        step = gradient.add(parameter, alpha=group["weight_decay"])
        if parameter.ndim > 1:
            step.mul_(trust_ratio(parameter, step, factor=group["eta"]))
        velocity = self.state[parameter]["exp_avg"]
        velocity.mul_(group["betas"][0]).add_(step)
        parameter.add_(velocity, alpha=-group["lr"])
