"""Sums and rows of all ranks, with the exact gradient.

Seen from one rank, a collective takes part in the losses L_r of all ranks r. Its backward therefore returns the
gradient of sum_r L_r, summed over ranks; `Reducer` divides the gradients of parameters by their number. So

    mean over r of L_r   is what is differentiated, whoever computes which share of it,

where torch's plain all-gather drops the gradient that other ranks owe to a row (the "query half" alone remains).

Only `torch.distributed.all_gather` and `all_reduce` are called: their names and meanings are the same in every
version of torch from 2.10 on, unlike those of its differentiable and single-tensor forms.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from onestage.distributed.ranks import rank, world


def gather(rows: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "all *rest"]:
    """The rows of all ranks, those of rank 0 first: the rows of the global batch in their order.

    Every rank gives a tensor of the same shape and type. Row i of rank r becomes row r * b + i. Gradients are exact;
    numbers and flags (`Target.identity`) may be gathered too. A single process gets its own tensor back.
    """
    return rows if world() == 1 else _Gather.apply(rows)


def total(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum over ranks, on all of them, with the exact gradient; the value itself in a single process."""
    return value if world() == 1 else _Total.apply(value)


def mean(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean over ranks, on all of them, with the exact gradient; the value itself in a single process.

    The mean over the global batch is `mean(x.mean(dim=0))`, since all ranks hold equally many samples.
    """
    return value if world() == 1 else total(value) / world()


@final
class _Gather(torch.autograd.Function):
    """All-gather; backward sums over ranks what each of them asks of a row, and returns the part of this rank."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        flags = rows.dtype == torch.bool
        given = (rows.to(torch.uint8) if flags else rows).contiguous()
        everything = given.new_empty((world(), *given.shape))
        dist.all_gather(list(everything.unbind()), given)
        found = everything.flatten(0, 1)
        return found.bool() if flags else found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0]).chunk(world())[rank()]


@final
class _Total(torch.autograd.Function):
    """All-reduce by sum; its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(value: Tensor) -> Tensor:
    result = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result
