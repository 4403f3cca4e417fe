"""A batch in pieces has the gradient of the undivided batch, also where its samples are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from onestage.distributed import statistics
from onestage.engine.accumulate import join, slopes
from onestage.engine.optimiser import Optimisers
from onestage.engine.pieces import split
from onestage.engine.step import Step
from onestage.methods import METHODS
from onestage.objective import Method, Objective
from onestage.pretraining import Prepared, prepare
from onestage.types import Batch, Represented
from small import small
from stepping import batch_of, differing, poisoned, state, take

SUMMED = dataclasses.replace(
    METHODS["clip"],
    name="summed",
    terms=METHODS["clip"].terms
    | {"category": dataclasses.replace(METHODS["supervised"].terms["category"], x=METHODS["clip"].terms["pair"].x)},
)
"""Samples compared within the batch, and a table that all of them share."""


def made(method: Method, precision: torch.dtype, **changes: Any) -> tuple[Prepared, Step, Batch]:
    """A row in a precision, with a step of its own, and a batch of it."""
    recipe = dataclasses.replace(small("clip", **changes), method=method)
    prepared = prepare(recipe, None)
    prepared.objective.to(precision)
    optimisers = Optimisers(prepared.objective.named_parameters(), recipe.optimiser, recipe.batch)
    answer, device = prepared.step.answer, prepared.device
    step = Step(prepared.objective, optimisers, answer, "fp32", recipe.accumulate, device)
    batch = batch_of(prepared, 0)
    views = {name: view._replace(pixels=view.pixels.to(precision)) for name, view in batch.views.items()}
    return prepared, step, batch._replace(views=views)


def gradients(objective: Objective) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], truth: dict[str, Tensor], precision: torch.dtype) -> None:
    bound = 1e-5 if precision == torch.float32 else 1e-10
    whole = float(torch.stack([gradient.norm() for gradient in truth.values()]).norm())
    assert found.keys() == truth.keys()
    for name, gradient in truth.items():
        # A gradient that is zero but for rounding (the bias of keys) is as near as the whole gradient allows.
        assert float((found[name] - gradient).norm()) < bound * max(float(gradient.norm()), whole * 1e-3), name


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", [METHODS["clip"], SUMMED], ids=lambda method: method.name)
def test_two_passes_have_the_gradient_of_the_whole_batch(method: Method, precision: torch.dtype) -> None:
    prepared, step, batch = made(method, precision)
    losses = step(batch, 0, 10).losses
    truth = gradients(prepared.objective)
    assert {name for name, p in prepared.objective.named_parameters() if p.requires_grad} == truth.keys()
    for pieces in (2, 4):
        prepared, step, batch = made(method, precision, accumulate=pieces)
        cut = step(batch, 0, 10).losses
        for name, loss in losses.terms.items():
            torch.testing.assert_close(cut.terms[name], loss, rtol=1e-5, atol=1e-6)
        assert_close(gradients(prepared.objective), truth, precision)


def test_both_passes_draw_the_same_and_statistics_move_once_a_piece() -> None:
    """Against the pieces represented once, all graphs kept, with drop path and batch norm."""
    vit = {"drop_path": 0.5, "stem": "conv"}
    prepared, step, batch = made(SUMMED, torch.float64, accumulate=2, vit=vit)
    torch.manual_seed(5)
    step(batch, 0, 10)
    found, moved = gradients(prepared.objective), [buffer.clone() for buffer in statistics(prepared.objective)]
    prepared, step, batch = made(SUMMED, torch.float64, accumulate=2, vit=vit)
    torch.manual_seed(5)
    kept = []
    for piece, seed in zip(split(batch, 2), torch.randint(2**31, (2,)), strict=True):
        torch.manual_seed(int(seed))
        kept.append(prepared.objective.represent(piece, {}))
    prepared.objective.score(join(kept)).total.backward()
    step.optimisers.clip()
    assert_close(found, gradients(prepared.objective), torch.float64)
    for buffer, truth in zip(moved, statistics(prepared.objective), strict=True):
        torch.testing.assert_close(buffer, truth)
    assert int(max(buffer.max() for buffer in moved if buffer.dtype == torch.long)) == 2


def test_rows_that_weights_count_have_one_normaliser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A likelihood of single samples, whose rows count unevenly in the pieces."""
    represent = Objective.represent

    def weighted(self: Objective, batch: Batch, answers: Any) -> Represented:
        plain = represent(self, batch, answers)
        weight = torch.tensor([0.0, 0, 0, 1, 0, 3, 2, 0.5], dtype=torch.float64)[batch.number % 8].unsqueeze(1)
        targets = {name: t._replace(weight=weight.expand(-1, t.rows.shape[1])) for name, t in plain.targets.items()}
        return plain._replace(targets=targets)

    monkeypatch.setattr(Objective, "represent", weighted)
    found = {}
    for pieces in (1, 2, 4):
        prepared, step, batch = made(small("mae").method, torch.float64, accumulate=pieces, models=small("mae").models)
        loss = step(batch, 0, 10).losses.total
        found[pieces] = gradients(prepared.objective) | {"loss": loss.double()}
    assert len(found[1]) > 10
    for pieces in (2, 4):
        assert float((found[pieces].pop("loss") - found[1]["loss"]).abs()) < 1e-6
        assert_close(found[pieces], {name: g for name, g in found[1].items() if name != "loss"}, torch.float64)


def test_shared_rows_and_parameters_are_carried_on_once() -> None:
    prepared, _, batch = made(SUMMED, torch.float32)
    with torch.no_grad():
        kept = [prepared.objective.represent(piece, {}) for piece in split(batch, 4)]
    _, pieces = slopes(prepared.objective, kept)
    assert [set(piece.parameters) for piece in pieces[:3]] == [set(), set(), set()]
    assert set(pieces[3].parameters) == {"parameter/likelihoods.pair.log_scale"}
    assert ["target/category" in piece.gradients for piece in pieces] == [False, False, False, True]


def test_a_step_in_two_passes_that_is_not_finite_leaves_no_trace() -> None:
    prepared = prepare(small("clip", vit={"stem": "conv"}, accumulate=2), None)
    before = state(prepared)
    assert take(prepared, 0, poisoned(batch_of(prepared, 0), float("nan")))
    assert differing(before, state(prepared)) == []
    assert not take(prepared, 1)
    assert differing(before, state(prepared))
