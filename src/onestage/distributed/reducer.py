"""Gradients averaged over ranks while backward runs: torch's DistributedDataParallel around whatever is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, final

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from onestage.distributed.ranks import world

T = TypeVar("T")


@final
class Reducer:
    """Runs work that uses a module so that the gradients of its parameters are the mean over ranks.

        reducer(lambda: objective(batch, answers).total, last=True).backward()

    The module itself stays as it is: its state keeps its names, and it is called by its own methods. A parameter that
    the work does not use has no gradient afterwards, as in a single process. At its first use in a group the weights
    and buffers of rank 0 become those of all ranks.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._wrapped: DistributedDataParallel | None = None

    def __call__(self, work: Callable[[], T], last: bool) -> T:
        """What `work` returns: a tensor, or tuples, lists and dictionaries of tensors, to go backward from.

        Args:
            last: whether gradients are exchanged in the backward pass that follows. Where a step has several, all but
                the last only add to `grad`; the last exchanges the sums, and must use every parameter that the others
                used.
        """
        if world() == 1:
            return work()
        wrapped = self._wrap()
        with nullcontext() if last else wrapped.no_sync():
            return wrapped(work)

    def _wrap(self) -> DistributedDataParallel:
        if self._wrapped is None:
            # Said once by torch where every parameter is used; looking for the others costs a walk over the graph.
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            self._wrapped = DistributedDataParallel(
                _Work(self._module), broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
            )
        return self._wrapped


@final
class _Work(nn.Module):
    """DistributedDataParallel follows `forward` alone; this one does whatever it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()
