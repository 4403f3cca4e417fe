"""Shares of hidden cells that are drawn: their distribution, what hides nothing, and what they weigh in a loss."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from onestage.methods import METHODS
from onestage.objective import Method
from onestage.spec import UserError, from_plain, to_plain
from onestage.views import Sampled
from small import lean
from test_objective import batch_for, objective_for

GRID = (14, 14)


def counts(hide: Sampled, draws: int = 2000) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(3))
    return np.array([hide.draw(rng, GRID).sum() for _ in range(draws)])


def test_shares_are_those_of_the_range() -> None:
    """Uniform; a normal cut to the range, by the slow way of drawing until one lies inside; and none at all."""
    even = counts(Sampled(low=0.1, high=0.5)) / 196
    assert 0.09 < even.min() < 0.12 and 0.48 < even.max() <= 0.5
    assert even.mean() == pytest.approx(0.3 - 0.5 / 196, abs=0.01) and even.std() == pytest.approx(
        0.4 / math.sqrt(12), abs=0.01
    )
    rng, slow = np.random.default_rng(1), []
    while len(slow) < 4000:
        share = rng.normal(0.55, 0.25)
        if 0.5 <= share <= 1.0:
            slow.append(share)
    mage = counts(Sampled(low=0.5, high=1.0, mean=0.55, deviation=0.25)) / 196
    assert mage.mean() == pytest.approx(np.mean(slow), abs=0.012) and mage.std() == pytest.approx(
        np.std(slow), abs=0.012
    )
    assert mage.max() <= 195 / 196, "one cell stays"
    some = counts(Sampled(low=0.1, high=0.5, none=0.5))
    assert (some == 0).mean() == pytest.approx(0.5, abs=0.04) and some[some > 0].min() >= 19
    assert Sampled(low=0.2, high=0.2).share(0.7) == 0.2 and Sampled(high=1.0).count(GRID) == 195
    assert Sampled(low=0.8, high=0.9, mean=0.0, deviation=0.01).share(0.5) == pytest.approx(0.8)


@pytest.mark.parametrize("form", ["cells", "blocks"])
def test_both_forms_hide_as_many_as_are_drawn(form: str) -> None:
    hide = Sampled(low=0.4, high=0.4, form=form)
    rng = np.random.Generator(np.random.Philox(5))
    masks = [hide.draw(rng, GRID).reshape(GRID) for _ in range(200)]
    assert {int(mask.sum()) for mask in masks} == {78}
    alike = np.mean([(mask[:, 1:] == mask[:, :-1]).mean() for mask in masks])
    assert alike > 0.75 if form == "blocks" else alike < 0.6, "neighbours are alike in blocks"


@torch.no_grad()
@pytest.mark.parametrize("weigh", ["cells", "images"])
def test_hidden_cells_alone_are_explained_each_or_each_image_alike(weigh: str) -> None:
    """The loss of a row by loops over what is hidden, where images hide 0 to 18 of 36 cells."""
    row = lean(METHODS["simmim"])
    hide = Sampled(low=0.1, high=0.5, none=0.4, weigh=weigh)
    part = dataclasses.replace(row.inputs["masked"].parts["image"], hide=hide)
    asked = dataclasses.replace(row.inputs["masked"], parts={"image": part})
    row = dataclasses.replace(row, inputs={"masked": asked})
    objective, batch = objective_for(row).eval(), batch_for(row)
    hidden = batch.hidden["masked/image"]
    assert 0 in hidden.sum(dim=1) and len(hidden.sum(dim=1).unique()) > 2
    (name,) = row.terms
    represented = objective.represent(batch, {})
    whole = dataclasses.replace(row.terms[name], target=dataclasses.replace(row.terms[name].target, rows="all"))
    everything = objective_for(dataclasses.replace(row, terms={name: whole})).eval()
    everything.load_state_dict(objective.state_dict())
    rows = everything.represent(batch, {})
    costs = (rows.guesses[name] - rows.targets[name].rows).abs().mean(dim=-1)
    each = [[float(costs[image, cell]) for cell in range(36) if hidden[image, cell]] for image in range(len(hidden))]
    if weigh == "cells":
        expected = sum(map(sum, each)) / sum(map(len, each))
    else:
        expected = sum(sum(one) / len(one) for one in each if one) / sum(bool(one) for one in each)
    assert objective.score(represented).terms[name].item() == pytest.approx(expected, rel=1e-4)


def test_what_does_not_go_together_is_said() -> None:
    sampled = {"kind": "sampled", "low": 0.1, "high": 0.5}
    plain = to_plain(METHODS["mae"])
    (asked,) = plain["inputs"].values()
    asked["parts"]["image"]["hide"] = sampled
    with pytest.raises(UserError, match=r"hides as many cells as it draws; use mode: replace"):
        from_plain(Method, plain)
    plain = to_plain(METHODS["uta_mim"])
    (asked,) = plain["inputs"].values()
    asked["parts"]["image"]["hide"] = sampled
    with pytest.raises(UserError, match=r"rows: kept\+cls, but as many cells stay as sampled draws"):
        from_plain(Method, plain)
    with pytest.raises(ValueError, match="no range of shares"):
        Sampled(low=0.6, high=0.5)
    with pytest.raises(ValueError, match="go together"):
        Sampled(mean=0.5)
