"""Linear heads on frozen features: all learning rates at once as a stack of heads over the same batches.

The shared pass over the data is DINOv2's (arXiv:2304.07193, appendix B.3); features are standardised by the
training data's mean and deviation, as by MAE's batch norm without affine (arXiv:2111.06377, appendix A.1).
SGD with momentum 0.9, no weight decay, a cosine to zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

Rate = Annotated[float, Field(gt=0)]
MOMENTUM = 0.9
INIT = 0.01
"""Deviation of the first weights (DINO)."""


class Heads(NamedTuple):
    """One linear classifier a learning rate."""

    weight: Float[Tensor, "r d classes"]
    bias: Float[Tensor, "r 1 classes"]


class Labelled(NamedTuple):
    """Standardised features and their classes: what a step learns from."""

    rows: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


class Standard(NamedTuple):
    """Mean and deviation of each feature."""

    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    def __call__(self, rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Rows of mean 0 and deviation 1, where the training data have them."""
        return (rows - self.mean) / self.deviation


def moments(rows: Float[Tensor, "n d"]) -> Standard:
    """Mean and deviation of each feature; a feature that is constant keeps its scale."""
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    return Standard(mean, torch.where(deviation > 1e-6, deviation, 1.0))


def train_heads(
    batches: Iterator[Labelled], first: Float[Tensor, "d classes"], rates: tuple[float, ...], steps: int
) -> Heads:
    """One head a rate, all from the same first weights and on the same batches, by the mean cross-entropy."""
    weight = first.repeat(len(rates), 1, 1)
    heads = Heads(weight, weight.new_zeros(len(rates), 1, first.shape[1]))
    speed = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    rate = torch.tensor(rates, device=first.device)[:, None, None]
    for step in range(steps):
        rows, labels = next(batches)
        now = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        target = functional.one_hot(labels, first.shape[1]).to(rows.dtype)
        error = (logits(heads, rows).softmax(dim=-1) - target) / len(rows)  # the gradient
        for value, velocity, slope in zip(
            heads, speed, (torch.einsum("nd,rnc->rdc", rows, error), error.sum(1, keepdim=True)), strict=True
        ):
            velocity.mul_(MOMENTUM).add_(slope)
            value.sub_(now * velocity)
    return heads


def first_weights(width: int, classes: int, draw: torch.Generator, device: torch.device) -> Float[Tensor, "d classes"]:
    """The weights that every head begins with."""
    return (torch.randn(width, classes, generator=draw) * INIT).to(device)


def logits(heads: Heads, rows: Float[Tensor, "n d"]) -> Float[Tensor, "r n classes"]:
    """Scores of every head."""
    return torch.einsum("nd,rdc->rnc", rows, heads.weight) + heads.bias


def held_out(count: int, share: float, draw: torch.Generator) -> tuple[Int[Tensor, " h"], Int[Tensor, " f"]]:
    """Which of `count` samples, two at least, choose the rate, and which train; one of each at least."""
    order = torch.randperm(count, generator=draw)
    held = min(max(round(count * share), 1), count - 1)
    return order[:held], order[held:]
