"""What a term sees of its input, what the input hides of its view, and which of the rows there are count."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from onestage.objective.declare import Method, Term
from onestage.objective.mix import hidden_of, own
from onestage.objective.words import only_hidden, only_words, own_part
from onestage.targets import Spelled, Table
from onestage.types import Batch, Grid, Target, Tokens, Wanted
from onestage.views import Sampled


def own_tokens(method: Method, term: Term, batch: Batch, tokens: Tokens) -> Tokens:
    """What a term sees of its input: everything, or in a mix each sample's own rows of one part."""
    asked, (key, _, part) = method.input_of(term), term.x.partition("/")
    if asked.mix is None:
        return own_part(asked, part, tokens, batch.words) if part else tokens
    slot, geometry = list(asked.parts).index(part), batch.views[asked.parts[part].of].geometry
    return own(tokens, batch.hidden[key], asked.mix.count(tokens.grid), slot, geometry)


def hidden_cells(method: Method, term: Term, batch: Batch, grid: Grid) -> tuple[Bool[Tensor, "b g"] | None, int]:
    """The cells that a term's part does not show, and how many they are."""
    asked, (key, _, part) = method.input_of(term), term.x.partition("/")
    if asked.mix is not None:
        slot, count = list(asked.parts).index(part), asked.mix.count(grid)
        return hidden_of(batch.hidden[key], slot), count if slot == 0 else grid[0] * grid[1] - count
    first = part or next(iter(asked.parts))
    shown = asked.parts[first].hide
    if asked.parts[first].of == "text" and batch.words is not None:
        grid = (1, batch.words.ids.shape[1])
    return batch.hidden.get(f"{key}/{first}"), 0 if shown is None else shown.count(grid)


def counted(method: Method, term: Term, batch: Batch, grid: Grid, wanted: Wanted, target: Target) -> Target:
    """A target whose rows weigh nothing where they only fill up: shapes are those of the most that can be hidden."""
    hidden, hide = hidden_cells(method, term, batch, grid)[0], method.part_of(term).hide
    if isinstance(term.target, Spelled):
        return only_hidden(target, wanted, hidden)
    if method.words_by_words(term) and batch.words is not None:
        return only_words(target, wanted, batch.words)
    if not isinstance(hide, Sampled) or isinstance(term.target, Table) or term.target.rows != "hidden":
        return target
    found = only_hidden(target, wanted, hidden)
    if hide.weigh == "cells" or hidden is None or found.weight is None:
        return found
    return found._replace(weight=found.weight / hidden.sum(dim=1, keepdim=True).clamp_min(1))
