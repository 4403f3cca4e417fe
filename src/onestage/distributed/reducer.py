"""Gradients averaged over ranks while backward runs, by torch's DistributedDataParallel (arXiv:2006.15704)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from onestage.distributed.ranks import world


@final
class Reducer:
    """Makes the gradients of a module's parameters the mean over ranks.

        loss = objective(batch, answers).total
        reducer.expect([loss])
        loss.backward()

    The module itself stays as it is: its state keeps its names, and it is called by its own methods. Where a step has
    several backward passes, all but the last only add to `grad` and nothing is said; the last exchanges the sums, and
    must reach every parameter that the others reached. A parameter that the first of these does not reach counts as
    unused: it has no gradient, as in a single process, and may not get one later.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._follower: DistributedDataParallel | None = None

    def expect(self, outputs: Iterable[Tensor]) -> None:
        """Say that gradients are exchanged in the backward pass that comes next, which starts from these tensors."""
        if world() == 1:
            return
        if self._follower is None:
            self._follower = self._follow(outputs)
        self._follower()

    def _follow(self, outputs: Iterable[Tensor]) -> DistributedDataParallel:
        """torch could look for unused parameters in every step; once is enough, for graphs that stay as they are."""
        used = reached(outputs)
        trained = [(name, p) for name, p in self._module.named_parameters() if p.requires_grad]
        for name, parameter in trained:
            if parameter not in used:
                parameter.register_post_accumulate_grad_hook(_Unused(name))
        parameters = _Parameters([parameter for _, parameter in trained if parameter in used])
        return DistributedDataParallel(
            parameters, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True
        )


@torch.no_grad()
def align(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0, in place. All ranks call it, before they go forward."""
    if world() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        sent = tensor.detach().contiguous()
        dist.broadcast(sent, src=0)
        tensor.copy_(sent)


def reached(outputs: Iterable[Tensor]) -> set[Tensor]:
    """The leaves that a backward pass from these tensors gives gradients to."""
    found = {tensor for tensor in outputs if tensor.is_leaf and tensor.requires_grad}
    waiting = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::AccumulateGrad":
            found.add(node.variable)  # pyright: ignore[reportAttributeAccessIssue] - what these nodes are for
        new = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= new
        waiting += new
    return found


@final
class _Parameters(nn.Module):
    """What DistributedDataParallel follows: its hooks sit on parameters, so it need not know what is computed."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.parameters_ = nn.ParameterList(parameters)

    def forward(self) -> None:
        """Called between the passes, it only makes the hooks ready."""


@final
class _Unused:
    """Refuses a gradient that no other rank would hear of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, parameter: Tensor) -> None:
        raise RuntimeError(f"parameter {self.name} was unused at first and has a gradient now, which is not exchanged")
