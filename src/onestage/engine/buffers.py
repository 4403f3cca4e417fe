"""Where a batch's pixels are put, and how a batch crosses from a loading process to the training process.

A view is written to its place as soon as it is cut, while it is small and at hand. All views of a batch lie in one
buffer, which both processes keep mapped and use again (`slots.py`); the small rest goes beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from onestage.engine.slots import Lenders, Slot, Slots
from onestage.roles import Plan
from onestage.types import Batch, Blended, Geometry, Mark, View, Words

Places = Mapping[str, np.ndarray]
"""Where the views of a sample are cut to: uint8 (3, height, width) of each."""


@final
class Stack:
    """The views of a batch of `count` samples, which are cut to their places one after another.

    Args:
        sizes: height and width of each view, in pixels.
        take: gives memory of so many bytes.
    """

    def __init__(self, count: int, sizes: Mapping[str, tuple[int, int]], take: Callable[[int], Tensor]) -> None:
        shapes = {name: (count, 3, *size) for name, size in sizes.items()}
        parts = take(sum(map(prod, shapes.values()))).split([prod(shape) for shape in shapes.values()])
        self._pixels = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        self._places = {name: pixels.numpy() for name, pixels in self._pixels.items()}

    def places(self, number: int) -> Places:
        """Those of a sample of the batch."""
        return {name: places[number] for name, places in self._places.items()}

    def views(self, plans: Sequence[Mapping[str, Plan]]) -> dict[str, View]:
        """All views, with the plans by which each sample's were cut."""
        return {name: View(pixels, _geometry([one[name] for one in plans])) for name, pixels in self._pixels.items()}


def _geometry(plans: Sequence[Plan]) -> Geometry:
    boxes = torch.tensor([plan.box for plan in plans], dtype=torch.float32)
    return Geometry(boxes, torch.tensor([plan.flip for plan in plans]))


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
