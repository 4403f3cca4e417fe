"""Encoding the inputs of a method, each once, and small crops of one size together.

Multi-crop (SwAV, arXiv:2006.09882; DINO, arXiv:2104.14294): many small crops cost little when one pass encodes them
all. A batch norm inside the backbone sees such a group at once; whatever comes after the backbone sees each view alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from onestage.objective.asks import depth_of, depth_read
from onestage.objective.declare import Input, Method, Term
from onestage.objective.mix import mix
from onestage.roles import Encoder
from onestage.targets import Encoded
from onestage.types import Batch, Geometry, Piece, Place, Tokens, View


def encode(method: Method, encoder_of: Callable[[str], Encoder], batch: Batch) -> dict[str, Tokens]:
    """The tokens of every input that a term reads."""
    groups: dict[tuple[str, int | str], list[str]] = {}
    for name in dict.fromkeys(term.x.partition("/")[0] for term in method.terms.values()):
        encoder = method.inputs[name].encoder
        size = small_crop(method, name, batch, encoder_of(encoder))
        groups.setdefault((encoder, size or name), []).append(name)
    encoded: dict[str, Tokens] = {}
    for (encoder, _), names in groups.items():
        if len(names) == 1:
            encoded[names[0]] = encoder_of(encoder)(pieces_of(method, names[0], batch, encoder_of(encoder)))
        else:
            encoded |= dict(zip(names, _together(encoder_of(encoder), _views(method, names, batch)), strict=True))
    return encoded


def small_crop(method: Method, name: str, batch: Batch, encoder: Encoder) -> int | None:
    """The side of an input that is one view, whole and smaller than the encoder's own; None for any other."""
    asked = method.inputs[name]
    part = next(iter(asked.parts.values()))
    alone = len(asked.parts) == 1 and part.of in batch.views and part.hide is None and not depth_read(method, name)
    side = batch.views[part.of].pixels.shape[-1] if alone else encoder.size
    return side if side < encoder.size else None


def pieces_of(method: Method, name: str, batch: Batch, encoder: Encoder) -> dict[str, Piece]:
    """What an encoder receives of an input: its parts with the cells that they hide."""
    asked = method.inputs[name]
    if asked.mix is not None:
        first, second = (batch.views[part.of] for part in asked.parts.values())
        taken = batch.hidden[name]
        return {"mixed": Piece(mix(first, second, taken, encoder.grid), owner=_owner(asked, taken))}
    pieces: dict[str, Piece] = {}
    depth = depth_read(method, name)
    for key, part in asked.parts.items():
        if part.of == "text":
            assert batch.words is not None, "the loader checks that texts are there"
            line = (1, batch.words.ids.shape[1])
            hides = 0 if part.hide is None else part.hide.count(line)
            pieces[key] = Piece(None, batch.words, batch.hidden.get(f"{name}/{key}"), hides, part.mode)
        elif part.hide is None:
            pieces[key] = Piece(view=batch.views[part.of], layers=depth)
        else:
            hidden, count = batch.hidden[f"{name}/{key}"], part.hide.count(encoder.grid)
            pieces[key] = Piece(batch.views[part.of], hidden=hidden, hides=count, mode=part.mode, layers=depth)
    return pieces


def shown_of(term: Term) -> str:
    """What an encoder is shown of a target's view: all of it, or what the term's input hides of it."""
    alone = isinstance(term.target, Encoded) and term.target.sees == "hidden"
    return f"{term.y} without {term.x}" if alone else term.y


def explained_piece(
    method: Method, name: str, term: Term, batch: Batch, hidden: tuple[Bool[Tensor, "b g"] | None, int]
) -> Piece:
    """What an encoder receives of a term's target, where the term's input hides so many of these cells."""
    words, depth = term.y == "text", depth_of(method, name, term.y)
    piece = Piece(None if words else batch.views[term.y], batch.words if words else None, layers=depth)
    cells, count = hidden
    if shown_of(term) == term.y or cells is None:
        return piece
    return piece._replace(hidden=~cells, hides=cells.shape[1] - count, mode="drop")


def _views(method: Method, names: list[str], batch: Batch) -> list[View]:
    return [batch.views[part.of] for name in names for part in method.inputs[name].parts.values()]


def _together(encoder: Encoder, views: list[View]) -> list[Tokens]:
    """One pass over several views, and the tokens of each."""
    boxes, flips = zip(*(view.geometry for view in views), strict=True)
    whole = View(torch.cat([view.pixels for view in views]), Geometry(torch.cat(boxes), torch.cat(flips)))
    tokens, count = encoder({"image": Piece(whole)}), len(views)
    places = zip(*(value.chunk(count) for value in tokens.place), strict=True)
    seconds = [None] * count if tokens.second is None else tokens.second.chunk(count)
    return [
        Tokens(rows, pooled, Place(*place), tokens.grid, view.geometry, second=second)
        for rows, pooled, second, place, view in zip(
            tokens.rows.chunk(count), tokens.pooled.chunk(count), seconds, places, views, strict=True
        )
    ]


def _owner(asked: Input, taken: Bool[Tensor, "b g"]) -> Bool[Tensor, "b g"] | None:
    """Which image each row may attend to, where rows attend to their own alone."""
    return taken if asked.attention == "own" else None
