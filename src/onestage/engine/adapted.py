"""What LAMB and LARS share: optimisers that rescale the step of each tensor by a trust ratio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, final, overload

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


class Adapted(torch.optim.Optimizer, ABC):
    """Updates tensor by tensor. What the state of a parameter holds must be set before the first step. Nothing here
    waits for the device."""

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
                    self.update(parameter, parameter.grad, group)
        return None

    @abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Take one step with one parameter, in place; the gradient stays as it is."""


def trust_ratio(
    parameter: Tensor, update: Tensor, bounds: Trust | None = None, factor: float = 1.0
) -> Float[Tensor, ""]:
    """factor |parameter| / |update|, held within the bounds; 1 where one of the norms is 0 (a tensor that starts at 0
    could not leave it otherwise)."""
    ours, theirs = parameter.norm(), update.norm()
    ratio = factor * ours / theirs
    if bounds is not None:
        ratio = ratio.clamp(bounds.least, bounds.greatest)
    return torch.where((ours > 0) & (theirs > 0), ratio, torch.ones_like(ratio))
