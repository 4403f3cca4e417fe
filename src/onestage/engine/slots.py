"""Memory that a loading process shares with the training process, lent again once nobody holds it."""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple, final

import torch
from jaxtyping import UInt8
from torch import Tensor

from onestage.lent import lent

MOST = 8
"""Buffers that a loading process shares and uses again: it runs four batches ahead, and one is being trained on."""
STATE = 64
"""Bytes before what a shared buffer holds, of which the first says whether it is lent."""


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
