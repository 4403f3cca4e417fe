"""Batches of short texts: places behind the longest one are cut off, and nothing that is learned changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from onestage.encoders import ClipText, Multiway
from onestage.encoders.words import Tokenizer
from onestage.engine.loader import batches
from onestage.methods import METHODS
from onestage.predictors import Decoder
from onestage.pretraining import prepare
from onestage.types import Piece, Place, Words
from small import lean, small
from stepping import brief_codes, brief_teacher
from test_objective import answers_for, batch_for, objective_for

LONG = "one two three four five six seven eight nine ten"


def lengths(recipe) -> set[int]:
    prepared = prepare(recipe, None)
    return {batch.words.ids.shape[1] for batch in batches(prepared.batches, 0, 2, 0) if batch.words is not None}


def test_words_end_behind_the_longest_text_of_a_batch() -> None:
    """Six words, with start and end eight places; one more, and there are sixteen, or as many as the context has."""
    tokenizer = Tokenizer(24)
    assert tokenizer.words(["one"]).ids.shape == (1, 8)
    assert tokenizer.words(["one", " ".join(LONG.split()[:6])]).ids.shape == (2, 8)
    assert tokenizer.words(["one", " ".join(LONG.split()[:7])]).ids.shape == (2, 16)
    assert tokenizer.words(["", ""]).ids.shape == (2, 8)
    assert Tokenizer(10).words([LONG]).ids.shape == (1, 10)
    assert Tokenizer(24, whole=True).words(["one"]).ids.shape == (1, 24)
    whole, short = tokenizer([LONG, "one"]), tokenizer.words([LONG, "one"]).ids
    assert torch.equal(whole[:, :16], short) and not whole[:, 16:].any()


@torch.no_grad()
@pytest.mark.parametrize("model", [ClipText(joint=12, width=16, depth=2, heads=2, context=24), Multiway(context=24)])
def test_an_encoder_says_the_same_of_short_texts(model: ClipText | Multiway) -> None:
    """In double precision: every word's row and the pooled row, with and without places behind the end."""
    torch.manual_seed(0)
    if isinstance(model, Multiway):
        model = dataclasses.replace(model, width=16, depth=2, heads=2, patch=8, size=32)
    encoder = model.build(frozenset({"full"})).double().eval()
    whole, short = (Tokenizer(24, beyond).words(["a red seven", "one"]) for beyond in (True, False))
    assert (whole.ids.shape[1], short.ids.shape[1]) == (24, 8)
    long, brief = (encoder({"text": Piece(None, words)}) for words in (whole, short))
    torch.testing.assert_close(brief.pooled, long.pooled, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(brief.rows, long.rows[:, :8], rtol=1e-12, atol=1e-12)
    assert brief.grid == (1, 8)


@pytest.mark.parametrize("row", ["clip", "beit3", "uta_text", "flip"])
def test_a_row_learns_the_same_of_short_texts(row: str) -> None:
    """Terms and gradients, in double precision, of a batch whose texts leave half of the context empty, and of one
    that ends behind them."""
    method, found = lean(METHODS[row]), []
    batch, answers = batch_for(method), answers_for(method)
    assert batch.words is not None
    batch = batch._replace(
        views={name: view._replace(pixels=view.pixels.double()) for name, view in batch.views.items()}
    )
    answers = {ask: one._replace(rows=one.rows.double(), pooled=one.pooled.double()) for ask, one in answers.items()}
    ids = batch.words.ids.clone()
    ids[:, 8:], ids[1, 5:] = 0, 0
    for context in (16, 8):
        objective = objective_for(method).double().eval()
        told = {
            ask: one._replace(
                rows=one.rows[:, :context], place=Place(*(part[:, :context] for part in one.place)), grid=(1, context)
            )
            if ask.view == "text"
            else one
            for ask, one in answers.items()
        }
        losses = objective(batch._replace(words=Words(ids[:, :context], batch.words.text_id)), told)
        losses.total.backward()
        slopes = {name: one.grad for name, one in objective.named_parameters() if one.grad is not None}
        found.append((losses.terms, slopes))
    (long, whole), (brief, short) = found
    assert brief.keys() == long.keys() and short.keys() == whole.keys()
    for name, term in long.items():
        torch.testing.assert_close(brief[name], term, rtol=1e-10, atol=1e-12)
    for name, slope in whole.items():
        torch.testing.assert_close(short[name], slope, rtol=1e-8, atol=1e-12)


def test_runs_read_no_further_than_their_texts(tmp_path) -> None:
    """Unless an encoder or a predictor reads the whole context."""
    run = brief_teacher(tmp_path)
    assert lengths(small("clip", data="scenes")) == {16}
    recipe = small("clip", data="digits")
    assert lengths(recipe) == {8}
    last = dataclasses.replace(recipe.models["text"], attention="all", pool="last")
    assert lengths(dataclasses.replace(recipe, models=recipe.models | {"text": last})) == {16}
    taught = small("uta_text", data="digits", teachers={"teacher": run})
    assert lengths(taught) == {8}
    term = dataclasses.replace(taught.method.terms["align"], predictor=Decoder(width=16, depth=1, heads=2))
    method = dataclasses.replace(taught.method, terms={"align": term})
    assert lengths(dataclasses.replace(taught, method=method)) == {16}
    assert lengths(small("beit3", data="digits", teachers={"teacher": brief_codes(run)})) == {8}
