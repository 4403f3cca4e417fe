"""Memory that is lent, and lent again once nobody holds it.

To map, clear and fault in the pages of a new buffer costs more than to write a batch into one that is there.
What is lent is a tensor of its own; its views, and what autograd keeps of them, hold it like any other. Where somebody
keeps all that was made, new memory is taken, and nobody waits.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import final

import torch
from jaxtyping import UInt8
from torch import Tensor

KEPT = 16
"""Buffers of this process that lie ready at the most."""


def lent(memory: UInt8[Tensor, " size"], back: Callable[[], object]) -> UInt8[Tensor, " size"]:
    """The same memory as another tensor. `back` is called once neither it nor a view of it is held any more."""
    held = memory.numpy()[:]  # of which the new tensor's storage, and nothing else, holds a reference
    weakref.finalize(held, back).atexit = False
    return torch.from_numpy(held)


@final
class Reused:
    """Memory of this process alone."""

    def __init__(self) -> None:
        self._free: deque[Tensor] = deque(maxlen=KEPT)

    def take(self, size: int) -> UInt8[Tensor, " size"]:
        """So many bytes, whatever they are."""
        memory = self._found(size)
        return lent(memory, partial(self._free.append, memory))

    def _found(self, size: int) -> UInt8[Tensor, " size"]:
        for _ in range(len(self._free)):
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if memory.numel() == size:
                return memory
            self._free.append(memory)
        return torch.empty(size, dtype=torch.uint8)
