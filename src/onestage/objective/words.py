"""Texts beside images in one encoder: words as rows of their own grid, and hidden words that differ in number."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from onestage.objective.declare import Input, Method, Term
from onestage.ops import is_word, place_of
from onestage.roles import HideText
from onestage.types import POOLED, Batch, Target, Tokens, Wanted, Words


def numbers(words: Words) -> Tokens:
    """The number of every word as a row, on a grid of one line."""
    ids = words.ids
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    rows = ids.unsqueeze(-1).float()
    return Tokens(rows, torch.zeros_like(rows[:, 0]), place_of(places, modality=1), (1, ids.shape[1]), None)


def identity(method: Method, term: Term, batch: Batch) -> Int[Tensor, " b"] | None:
    """What targets are alike by: their label, or the text that is explained or explains."""
    if term.y == "label":
        return batch.label
    of_text = term.y == "text" or method.reads_text_alone(term)
    return batch.words.text_id if of_text and batch.words is not None else None


def own_part(asked: Input, part: str, tokens: Tokens, words: Words | None) -> Tokens:
    """Of the tokens of an image and a text in one input, those of one part: words come after cells."""
    assert words is not None, "an input with a text comes with words"
    count = words.ids.shape[1]
    of_text = asked.parts[part].of == "text"
    kept = slice(-count, None) if of_text else slice(None, -count)
    place = type(tokens.place)(*(values[:, kept] for values in tokens.place))
    found = tokens._replace(rows=tokens.rows[:, kept], place=place)
    return found._replace(grid=(1, count), geometry=None) if of_text else found


def hide_words(method: Method, batch: Batch) -> dict[str, Bool[Tensor, "b t"]]:
    """The hidden words of every input that hides some."""
    return {
        f"{name}/{key}": part.hide.choose(batch.noise[f"{name}/{key}"], batch.words.ids)
        for name, asked in method.inputs.items()
        for key, part in asked.parts.items()
        if isinstance(part.hide, HideText) and batch.words is not None
    }


def only_words(target: Target, wanted: Wanted, words: Words) -> Target:
    """Rows of places behind a text's end, which no word stands in, weigh nothing."""
    real = is_word(words.ids).gather(1, wanted.cell.clamp_min(0))
    weight = (real | (wanted.cell == POOLED)).float()
    return target._replace(weight=weight if target.weight is None else weight * target.weight)


def only_hidden(target: Target, wanted: Wanted, hidden: Bool[Tensor, "b t"] | None) -> Target:
    """Rows that are there to fill up, where a text has fewer hidden words than the longest may have, weigh nothing."""
    assert hidden is not None, "words that are hidden belong to an input that hides"
    weight = hidden.gather(1, wanted.cell).float()
    return target._replace(weight=weight if target.weight is None else weight * target.weight)
