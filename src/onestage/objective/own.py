"""What a term sees of its input, and what the input hides of its view."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from onestage.objective.declare import Method, Term
from onestage.objective.mix import hidden_of, own
from onestage.objective.words import own_part
from onestage.types import Batch, Grid, Tokens


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
    return batch.hidden.get(f"{key}/{first}"), 0 if shown is None else shown.count(grid)
