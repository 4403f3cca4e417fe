"""Where a batch's pixels are put, and how a batch crosses from a loading process to the training process.

A view is written to its place as soon as it is cut, while it is small and at hand. All views of a batch lie in one
buffer, which both processes keep mapped and use again (`slots.py`); the small rest goes beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from onestage.engine.slots import Lenders, Slot, Slots
from onestage.types import Batch, Blended, Geometry, Mark, View, Words


class Seen(NamedTuple):
    """One view of one sample: uint8 pixels (3, size, size), box and flip."""

    pixels: Tensor
    box: tuple[int, int, int, int]
    flip: bool


@final
class Stack:
    """The views of a batch of `count` samples, which are put there one after another.

    Args:
        take: gives memory of so many bytes.
    """

    def __init__(self, count: int, take: Callable[[int], Tensor]) -> None:
        self.count, self.take = count, take
        self._pixels: dict[str, Tensor] = {}
        self._boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        self._flips: dict[str, list[bool]] = {}

    def put(self, place: int, views: Mapping[str, Seen]) -> None:
        """The views of the next sample, whose place in the batch is `place`."""
        if place == 0:
            self._make(views)
        for name, (pixels, box, flip) in views.items():
            # Views lie channels last; numpy turns small pictures twice as fast as torch does.
            self._pixels[name][place].numpy()[...] = pixels.numpy()
            self._boxes[name].append(box)
            self._flips[name].append(flip)

    def views(self) -> dict[str, View]:
        """What was put there."""
        return {name: View(pixels, self._geometry(name)) for name, pixels in self._pixels.items()}

    def _geometry(self, name: str) -> Geometry:
        return Geometry(torch.tensor(self._boxes[name], dtype=torch.float32), torch.tensor(self._flips[name]))

    def _make(self, views: Mapping[str, Seen]) -> None:
        sizes = [self.count * seen.pixels.numel() for seen in views.values()]
        parts = self.take(sum(sizes)).split(sizes)
        self._pixels = {
            name: part.view(self.count, *views[name].pixels.shape) for name, part in zip(views, parts, strict=True)
        }
        self._boxes, self._flips = {name: [] for name in views}, {name: [] for name in views}


class _Part(NamedTuple):
    """Where a tensor lies in a buffer, in bytes."""

    start: int
    shape: tuple[int, ...]


class Sent(NamedTuple):
    """A batch on its way: where its pixels are, and the batch with numpy's arrays and `_Part`s for its tensors."""

    slot: Slot
    batch: Any


def sent(batch: Batch, slots: Slots, worker: int) -> Sent:
    """A batch as it leaves the loading process `worker`, its views being in what was last taken of `slots`."""

    def leave(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return _Part(int(value.storage_offset()), tuple(value.shape)) if value.is_shared() else value.numpy()

    return Sent(slots.last(worker), _each(batch, leave))


def received(sent: Sent, lenders: Lenders) -> Batch:
    """The batch as it left."""
    memory = lenders.memory(sent.slot)

    def arrive(value: object) -> object:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if not isinstance(value, _Part):
            return value
        return memory[value.start : value.start + prod(value.shape)].view(value.shape)

    return _each(sent.batch, arrive)


def _each(value: Any, change: Callable[[object], object]) -> Any:
    """A bundle whose leaves are all changed."""
    if isinstance(value, Batch | View | Geometry | Words | Mark | Blended):
        return type(value)(*(_each(part, change) for part in value))
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    return change(value)
