"""Batches of every row for the tests of the loader, and how two of them are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onestage.data import Quarantine
from onestage.encoders.words import Tokenizer
from onestage.engine.buffers import Places, Stack
from onestage.engine.drawn import Drawn
from onestage.engine.loader import Batches
from onestage.objective import Method
from onestage.roles import Plan, Source, ViewMaker
from onestage.types import Batch
from small import BATCH, ROWS

SIDE, GRID, STEPS, CONTEXT = 16, (4, 4), 40, 16


def sized(row: str) -> Method:
    """A row whose views are 16 pixels wide."""
    method = ROWS[row]
    views = {name: dataclasses.replace(view, size=SIDE) for name, view in method.views.items()}
    return dataclasses.replace(method, views=views)


def made(source: Source, method: Method, **changes: Any) -> Batches:
    given = {
        "grids": dict.fromkeys(method.encoders, GRID),
        "batch": BATCH,
        "seed": 0,
        "tokenize": Tokenizer(CONTEXT).words if method.needs_texts else None,
        "quarantine": Quarantine(None),
        "texts": None,
        "total": STEPS,
    }
    return Batches(source, method, **(given | changes))


def drawn(data: Batches, number: int) -> tuple[Drawn, Places]:
    """A sample of the stream, and its views."""
    places = Stack(1, data.sizes, lambda size: torch.empty(size, dtype=torch.uint8)).places(0)
    return data.draw(number, places), places


def cut(view: ViewMaker, pixels: np.ndarray, plan: Plan) -> Tensor:
    """A view in memory of its own."""
    assert view.size is not None
    out = np.empty((3, view.size, view.size), np.uint8)
    view.cut(pixels, plan, out)
    return torch.from_numpy(out)


def flat(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a batch by name; texts filled up, since each rank's end behind the longest of its own."""
    tensors: dict[str, Tensor | None] = {"number": batch.number, "label": batch.label, "labelled": batch.labelled}
    for name, view in batch.views.items():
        tensors |= {f"{name}.pixels": view.pixels, f"{name}.box": view.geometry.box, f"{name}.flip": view.geometry.flip}
    tensors |= {f"hidden.{name}": hidden for name, hidden in batch.hidden.items()}
    tensors |= {f"noise.{name}": noise for name, noise in batch.noise.items()}
    for name, mark in (batch.marks or {}).items():
        tensors |= {f"{name}.place": mark.place, f"{name}.key": mark.key}
    if batch.words is not None:
        tensors |= {"given": batch.words.given}
        ids = batch.words.ids
        tensors |= {"ids": functional.pad(ids, (0, CONTEXT - ids.shape[1])), "text_id": batch.words.text_id}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def same(first: Batch, second: Batch) -> bool:
    one, two = flat(first), flat(second)
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())
