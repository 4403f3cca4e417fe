"""Batch normalisation (arXiv:1502.03167) over the batch of all ranks, on the CPU as on GPUs.

With N values a channel over all ranks, x^ = (x - mean) / sqrt(var + eps) and y = w x^ + b, the gradient is

    dL/dx = w / sqrt(var + eps) (g - 1/N sum g - x^ 1/N sum g x^),        g = dL/dy,

with the sums over all ranks. Each rank's w and b get the sums over its own values; `Reducer` adds up the others.
"""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from onestage.distributed.collectives import gather, total
from onestage.distributed.ranks import world

KINDS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside `module`, in place, by one over all ranks; a batch norm itself is returned
    replaced. Names and values of parameters and buffers stay. Nothing is done in a single process.

    Raises:
        ValueError: for a batch norm of a library's own kind, which may do more than normalise.
    """
    if world() == 1:
        return module
    if type(module) in KINDS:
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        return SyncBatchNorm(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise ValueError(f"{type(module).__name__} cannot be synchronised; use nn.BatchNorm1d, 2d or 3d")
    for name, child in module.named_children():
        setattr(module, name, synchronise(child))
    return module


def statistics(module: nn.Module) -> list[Tensor]:
    """The running statistics of every batch norm inside `module`, synchronised or not (not copies)."""
    kinds = (nn.modules.batchnorm._BatchNorm, SyncBatchNorm)
    return [buffer for part in module.modules() if isinstance(part, kinds) for buffer in part.buffers()]


@final
class SyncBatchNorm(nn.Module):
    """In place of a batch norm, with its parameters and buffers under its names.

    Training uses the mean and variance of all ranks, computed in at least fp32, and keeps the running ones alike on
    all of them; evaluation uses these and exchanges nothing.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, given: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = given.eps, given.momentum
        self.weight, self.bias = given.weight, given.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(given, name))
        self.training = given.training

    def forward(self, values: Float[Tensor, "b c *rest"]) -> Float[Tensor, "b c *rest"]:
        if not self.training and self.running_mean is not None:
            mean, var = self.running_mean, self.running_var
            return functional.batch_norm(values, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        wide = values if values.dtype == torch.float64 else values.float()
        count, mean, var = moments(wide)
        if self.training and self.running_mean is not None:
            self._track(count, mean, var)
        normed = _Normalise.apply(wide, mean, (var + self.eps).rsqrt(), count)
        shape = _beside(values)
        if self.weight is not None and self.bias is not None:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(values.dtype)

    @torch.no_grad()
    def _track(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics; the variance unbiased, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var * (count / (count - 1).clamp_min(1))).to(self.running_var.dtype), share)


@torch.no_grad()
def moments(values: Float[Tensor, "b c *rest"]) -> tuple[Float[Tensor, ""], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """How many values a channel has over all ranks, their mean and their biased variance: from each rank's own, put
    together without the cancellation that sums of squares suffer."""
    dims = _others(values)
    own = values.mean(dim=dims)
    spread = (values - own.view(_beside(values))).square().sum(dim=dims)
    count = own.new_full((1,), values.numel() // values.shape[1])
    found = gather(torch.cat([count, own, spread]).unsqueeze(0))
    counts, means, spreads = found[:, :1], found[:, 1 : 1 + len(own)], found[:, 1 + len(own) :]
    number = counts.sum()
    mean = (counts * means).sum(dim=0) / number
    return number, mean, (spreads + counts * (means - mean).square()).sum(dim=0) / number


@final
class _Normalise(torch.autograd.Function):
    """x^ of the module's docstring, and its gradient through the mean and the variance of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, scale: Tensor, count: Tensor) -> Tensor:
        shape = _beside(values)
        normed = (values - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normed, scale, count)
        return normed

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        normed, scale, count = ctx.saved_tensors
        gradient, dims, shape = gradients[0], _others(normed), _beside(normed)
        sums = total(torch.stack([gradient.sum(dim=dims), (gradient * normed).sum(dim=dims)])) / count
        centred = gradient - sums[0].view(shape) - normed * sums[1].view(shape)
        return centred * scale.view(shape), None, None, None


def _others(values: Tensor) -> list[int]:
    """All axes but the channels'."""
    return [axis for axis in range(values.ndim) if axis != 1]


def _beside(values: Tensor) -> list[int]:
    """The shape in which one number a channel stands beside the values."""
    return [1, -1, *(1 for _ in range(values.ndim - 2))]
