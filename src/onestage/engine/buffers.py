"""Where a batch's pixels are put, and how a batch crosses from a loading process to the training process.

A view is written to its place as soon as it is cut, while it is small and at hand. All views of a batch lie in one
buffer: what crosses as a tensor costs a file, a socket and a handshake, so one does, and the small rest goes beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from onestage.types import Batch, Blended, Geometry, Mark, View, Words


class Seen(NamedTuple):
    """One view of one sample: uint8 pixels (3, size, size), box and flip."""

    pixels: Tensor
    box: tuple[int, int, int, int]
    flip: bool


@final
class Stack:
    """The views of a batch of `count` samples, which are put there one after another."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pixels: dict[str, Tensor] = {}
        self._boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        self._flips: dict[str, list[bool]] = {}

    def put(self, place: int, views: Mapping[str, Seen]) -> None:
        """The views of the next sample, whose place in the batch is `place`."""
        if not self._pixels:
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
        parts = _buffer(sum(sizes)).split(sizes)
        self._pixels = {
            name: part.view(self.count, *views[name].pixels.shape) for name, part in zip(views, parts, strict=True)
        }
        self._boxes, self._flips = {name: [] for name in views}, {name: [] for name in views}


def _buffer(size: int) -> UInt8[Tensor, " size"]:
    """So many bytes; in a loading process, where the training process sees them too."""
    if get_worker_info() is None:
        return torch.empty(size, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(size)  # as torch's own collation does it
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class _Part(NamedTuple):
    """Where a tensor lies in a buffer, in bytes."""

    start: int
    shape: tuple[int, ...]


class Sent(NamedTuple):
    """A batch on its way: its buffer, and the batch with numpy's arrays and `_Part`s for its tensors."""

    buffer: UInt8[Tensor, " size"] | None
    batch: Any


def sent(batch: Batch) -> Sent:
    """A batch as it leaves a loading process."""
    buffers: list[Tensor] = []

    def leave(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        if not value.is_shared():
            return value.numpy()
        buffers.append(value)
        return _Part(int(value.storage_offset()), tuple(value.shape))

    left = _each(batch, leave)
    whole = None if not buffers else torch.empty(0, dtype=torch.uint8).set_(buffers[0].untyped_storage())
    return Sent(whole, left)


def received(sent: Sent) -> Batch:
    """The batch as it left."""

    def arrive(value: object) -> object:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if not isinstance(value, _Part):
            return value
        assert sent.buffer is not None, "a part lies in a buffer"
        return sent.buffer[value.start : value.start + prod(value.shape)].view(value.shape)

    return _each(sent.batch, arrive)


def _each(value: Any, change: Callable[[object], object]) -> Any:
    """A bundle whose leaves are all changed."""
    if isinstance(value, Batch | View | Geometry | Words | Mark | Blended):
        return type(value)(*(_each(part, change) for part in value))
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    return change(value)
