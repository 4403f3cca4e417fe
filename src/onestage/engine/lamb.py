"""LAMB (You et al., arXiv:1904.00962, algorithm 2): AdamW's direction, rescaled for each tensor by a trust ratio.

With the moments m and v corrected for their start, r = m / (sqrt(v) + eps), and a decay of lambda:

    u = r + lambda x;    x <- x - lr * trust * u;    trust = |x| / |u|, and 1 where either norm is 0.

Every tensor is adapted, those without decay too, and nothing is clipped here; timm's Lamb leaves out the
former and clips the global norm to 1 unless told otherwise.
"""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from onestage.engine.adapted import Adapted, trust_ratio


@final
class Lamb(Adapted):
    """Groups hold `lr`, `betas`, `eps`, `weight_decay` and `trust` (None: unbounded); the state of a parameter is
    `exp_avg`, `exp_avg_sq` and `step`."""

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Against AdamW's direction, with the decay in it."""
        step = self._direction(parameter, gradient, group["betas"], group["eps"])
        step.add_(parameter, alpha=group["weight_decay"])
        step.mul_(trust_ratio(parameter, step, group["trust"]))
        parameter.add_(step, alpha=-group["lr"])

    def _direction(self, parameter: Tensor, gradient: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
        """AdamW's step of length 1, without decay, after the moments took in the gradient."""
        state = self.state[parameter]
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - betas[0])
        state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        mean = state["exp_avg"] / (1 - betas[0] ** state["step"])
        square = state["exp_avg_sq"] / (1 - betas[1] ** state["step"])
        return mean / (square.sqrt() + eps)
