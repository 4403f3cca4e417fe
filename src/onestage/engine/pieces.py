"""Batches on their device, and in pieces for accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from onestage.spec import UserError
from onestage.types import Batch, Blended, Geometry, Mark, View, Words


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on its device. Pixels stay uint8: every network makes floats of them as it normalises them."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    views = {name: View(move(view.pixels), Geometry(*map(move, view.geometry))) for name, view in batch.views.items()}
    return Batch(
        batch.number,
        views,
        {name: move(hidden) for name, hidden in batch.hidden.items()},
        _changed(batch.words, move),
        None if batch.label is None else move(batch.label),
        None if batch.labelled is None else move(batch.labelled),
        batch.marks,  # read on the CPU
        batch.copies,
        {name: move(noise) for name, noise in batch.noise.items()},
        {name: Blended(*map(move, blend)) for name, blend in batch.blends.items()},
    )


def split(batch: Batch, pieces: int) -> list[Batch]:
    """A batch in equal pieces, for accumulation."""
    if pieces == 1:
        return [batch]
    size = batch.number.shape[0] // pieces

    def cut(tensor: Tensor, piece: int) -> Tensor:
        return tensor[piece * size : (piece + 1) * size]

    return [
        Batch(
            cut(batch.number, piece),
            {
                name: View(cut(view.pixels, piece), Geometry(*(cut(part, piece) for part in view.geometry)))
                for name, view in batch.views.items()
            },
            {name: cut(hidden, piece) for name, hidden in batch.hidden.items()},
            _changed(batch.words, partial(cut, piece=piece)),
            None if batch.label is None else cut(batch.label, piece),
            None if batch.labelled is None else cut(batch.labelled, piece),
            None if batch.marks is None else _cut_marks(batch.marks, partial(cut, piece=piece)),
            batch.copies,
            {name: cut(noise, piece) for name, noise in batch.noise.items()},
            {name: Blended(*(cut(part, piece) for part in blend)) for name, blend in batch.blends.items()},
        )
        for piece in range(pieces)
    ]


def check_slices(batch: int, world: int, accumulate: int) -> None:
    """Every rank must get an equal slice of a batch, of whole pairs of partners (numbers i and i xor 1), in pieces.

    Raises:
        UserError: with the nearest batches that fit.
    """
    unit = world * math.lcm(2, accumulate) if world > 1 else accumulate
    if batch % unit:
        near = sorted({max(batch // unit, 1) * unit, (batch // unit + 1) * unit})
        pieces = f", each in {accumulate} equal pieces" if accumulate > 1 else ""
        raise UserError(
            f"batch: {batch} cannot be shared by {world} processes in equal slices of whole pairs{pieces}; use "
            f"{' or '.join(map(str, near))} (the batch of all processes together), or another number of processes"
        )


def _changed(words: Words | None, change: Callable[[Tensor], Tensor]) -> Words | None:
    """Words whose tensors are all changed alike."""
    if words is None:
        return None
    return Words(change(words.ids), change(words.text_id), None if words.given is None else change(words.given))


def _cut_marks(marks: dict[str, Mark], cut: Callable[[Tensor], Tensor]) -> dict[str, Mark]:
    return {name: Mark(*map(cut, mark)) for name, mark in marks.items()}
