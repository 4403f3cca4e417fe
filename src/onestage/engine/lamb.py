"""LAMB (You et al., arXiv:1904.00962, algorithm 2): AdamW's direction, rescaled for each tensor by a trust ratio.

With the moments m and v corrected for their start, r = m / (sqrt(v) + eps), and a decay of lambda:

    u = r + lambda x;    x <- x - lr * trust * u;    trust = |x| / |u|, and 1 where either norm is 0.

Every tensor is adapted, those without decay too, and nothing is clipped here; timm's Lamb leaves out the
former and clips the global norm to 1 unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, final, overload

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from onestage.spec import spec


@final
@spec
class Trust:
    """Bounds of the trust ratio; those given here are DeepSpeed's, which EVA-CLIP's runs used."""

    least: Annotated[float, Field(ge=0)] = 0.01
    greatest: Annotated[float, Field(gt=0)] = 10.0

    def __post_init__(self) -> None:
        if self.least > self.greatest:
            raise ValueError(f"trust: least {self.least} is above greatest {self.greatest}; exchange them")


@final
class Lamb(torch.optim.Optimizer):
    """Groups hold `lr`, `betas`, `eps`, `weight_decay` and `trust` (None: unbounded).

    The state of a parameter, `exp_avg`, `exp_avg_sq` and `step`, must be set before the first step. Nothing
    here waits for the device.
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
                    update = self._direction(parameter, group["betas"], group["eps"])
                    update.add_(parameter, alpha=group["weight_decay"])
                    update.mul_(trust_ratio(parameter, update, group["trust"]))
                    parameter.add_(update, alpha=-group["lr"])
        return None

    def _direction(self, parameter: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
        """AdamW's step of length 1, without decay, after the moments took in the gradient."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - betas[0])
        state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        mean = state["exp_avg"] / (1 - betas[0] ** state["step"])
        square = state["exp_avg_sq"] / (1 - betas[1] ** state["step"])
        return mean / (square.sqrt() + eps)


def trust_ratio(parameter: Tensor, update: Tensor, bounds: Trust | None) -> Float[Tensor, ""]:
    """|parameter| / |update|, held within the bounds; 1 where one of the norms is 0 (a tensor that starts at 0
    could not leave it otherwise)."""
    ours, theirs = parameter.norm(), update.norm()
    ratio = ours / theirs
    if bounds is not None:
        ratio = ratio.clamp(bounds.least, bounds.greatest)
    return torch.where((ours > 0) & (theirs > 0), ratio, torch.ones_like(ratio))
