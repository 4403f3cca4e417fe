"""What encoders have to answer beside their rows, read off a method: of which views, blocks, and attention."""

from __future__ import annotations

from typing import NamedTuple

from onestage.encoders import Aggregation
from onestage.objective.declare import Frozen, Method
from onestage.predictors import OfBlocks
from onestage.roles import Space
from onestage.targets import Encoded
from onestage.types import Also
from onestage.views import Attentive


class Ask(NamedTuple):
    """What a frozen teacher has to answer for a step."""

    encoder: str
    view: str
    space: Space
    also: Also = Also()


def asks(method: Method) -> tuple[Ask, ...]:
    """Every distinct (teacher, view, space) that the terms need, with all that is wanted of it at once. The attention
    of a view is asked for once, in whatever space its rows are asked for."""
    frozen, depths = method.named(Frozen), dict[tuple[str, str, Space], int]()
    for term in method.terms.values():
        target = term.target
        if isinstance(target, Encoded) and target.encoder in frozen:
            key = (target.encoder, term.y, target.space)
            depths[key] = max(depths.get(key, 0), target.depth)
    looked = _looked(method)
    for encoder, view in looked - {key[:2] for key in depths}:
        depths[encoder, view, "raw"] = 0
    made = []
    for key in sorted(depths):
        made.append(Ask(*key, Also(depths[key], key[:2] in looked)))
        looked.discard(key[:2])
    return tuple(made)


def ask_for(method: Method, encoder: str, view: str, space: Space) -> Ask:
    """The ask that the rows of a target are in."""
    return next(ask for ask in asks(method) if ask[:3] == (encoder, view, space))


def ask_for_attention(method: Method, encoder: str, view: str) -> Ask:
    """The ask that a teacher's attention is in."""
    return next(ask for ask in asks(method) if ask[:2] == (encoder, view) and ask.also.attention)


def depth_of(method: Method, encoder: str, view: str) -> int:
    """Of how many of its last blocks an encoder has to give the outputs, as the target of a view."""
    targets = [term.target for term in method.terms.values() if term.y == view]
    return max((one.depth for one in targets if isinstance(one, Encoded) and one.encoder == encoder), default=0)


def depth_read(method: Method, name: str) -> int:
    """Of how many of the last blocks the predictors and projectors of an input read the outputs."""
    terms = [term for term in method.terms.values() if term.x.partition("/")[0] == name]
    passed = [method.projectors[term.projector] for term in terms if term.projector is not None]
    read = [term.predictor.of for term in terms if isinstance(term.predictor, OfBlocks)]
    return max(read + [one.block for one in passed if isinstance(one, Aggregation)], default=0)


def _looked(method: Method) -> set[tuple[str, str]]:
    """Every (teacher, view) whose attention decides what is hidden."""
    parts = [part for asked in method.inputs.values() for part in asked.parts.values()]
    return {(part.hide.by, part.of) for part in parts if isinstance(part.hide, Attentive)}
