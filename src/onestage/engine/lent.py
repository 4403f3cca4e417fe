"""Memory that is lent, and lent again once nobody holds it.

To map, clear and fault in the pages of a new buffer costs more than to write a batch into one that is there.
What is lent is a tensor of its own; its views, and what autograd keeps of them, hold it like any other. Where somebody
keeps all that was made, new memory is taken, and nobody waits.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, final

import torch
from jaxtyping import UInt8
from torch import Tensor

KEPT = 16
"""Buffers of this process that lie ready at the most."""
MOST = 8
"""Buffers that a loading process shares and uses again: it runs four batches ahead, and one is being trained on."""
STATE = 64
"""Bytes before what a shared buffer holds, of which the first says whether it is lent."""


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


class Slot(NamedTuple):
    """Which buffer of which loading process, and the buffer itself where its reader does not know it yet. A number
    below zero: one that is used once."""

    worker: int
    number: int
    memory: UInt8[Tensor, " size"] | None


@final
class Slots:
    """A loading process's memory, which the training process sees too."""

    def __init__(self) -> None:
        self._slots: list[Tensor] = []
        self._told: set[int] = set()
        self._last = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int) -> UInt8[Tensor, " size"]:
        """So many bytes, whatever they are."""
        self._last = self._found(STATE + size)
        self._last[0] = 1
        return self._last[STATE:]

    def last(self, worker: int) -> Slot:
        """What was taken last, for `Lenders` of the process that reads it."""
        number = next((number for number, slot in enumerate(self._slots) if slot is self._last), -1)
        told = number in self._told
        self._told |= {number} - {-1}
        return Slot(worker, number, None if told else self._last)

    def _found(self, size: int) -> UInt8[Tensor, " size"]:
        free = (slot for slot in self._slots if slot.numel() == size and int(slot[0]) == 0)
        found = next(free, None)
        if found is None:
            storage = torch.UntypedStorage._new_shared(size)  # as torch's own collation does it
            found = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._slots += [found] if len(self._slots) < MOST else []
        return found


@final
class Lenders:
    """The buffers of all loading processes, as the training process knows them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Tensor] = {}

    def memory(self, slot: Slot) -> UInt8[Tensor, " size"]:
        """A slot's bytes, its state included, until nobody holds them."""
        if slot.number < 0:
            assert slot.memory is not None, "what is used once comes along"
            return slot.memory
        known = self._known.setdefault((slot.worker, slot.number), slot.memory)  # pyright: ignore[reportArgumentType]
        return lent(known, partial(_give_back, known, os.getpid()))


def _give_back(memory: UInt8[Tensor, " size"], owner: int) -> None:
    """Not by a child of the process that holds it: what a child lets go of, its parent may still read."""
    if os.getpid() == owner:
        memory.numpy()[0] = 0
