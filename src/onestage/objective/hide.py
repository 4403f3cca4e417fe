"""Hiding that waits for a teacher's answer: the cells are chosen inside the step, from noise that the loader drew."""

from __future__ import annotations

from onestage.objective.asks import Ask, ask_for_attention
from onestage.objective.declare import Method
from onestage.objective.words import hide_words
from onestage.roles import HideLater
from onestage.types import Batch, Grid, Tokens


def chosen(method: Method, batch: Batch, answers: dict[Ask, Tokens], grids: dict[str, Grid]) -> Batch:
    """The batch with every hidden cell known.

    Raises:
        UserError: when a teacher cannot say what hiding asks of it.
    """
    hidden = batch.hidden | hide_words(method, batch)
    for name, asked in method.inputs.items():
        for key, part in asked.parts.items():
            if isinstance(part.hide, HideLater):
                answer = answers[ask_for_attention(method, part.hide.by, part.of)]
                noise = batch.noise[f"{name}/{key}"]
                hidden[f"{name}/{key}"] = part.hide.choose(noise, answer, grids[asked.encoder])
    return batch._replace(hidden=hidden)
