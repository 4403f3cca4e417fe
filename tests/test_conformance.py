"""What every row of the table keeps to, those that exist and those to come: one set of checks over all of them."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from onestage.likelihood import (
    Bernoulli,
    Boltzmann,
    Categorical,
    Centred,
    CrossCorrelation,
    Gaussian,
    Prototypes,
    Scores,
    Sigmoid,
)
from onestage.methods import METHODS
from onestage.objective import COLLAPSED, Ema, Frozen, Method, Objective, Term, Trained
from onestage.predictors import Aligned
from onestage.spec import from_plain, to_plain
from onestage.targets import Encoded, Hog, Pixels, Spelled, Table
from onestage.types import Losses, Represented
from small import lean, remembers
from test_objective import CODES, answers_for, batch_for, objective_for

CLASSES, BATCH = 3, 4
SHARP = 0.01
"""The temperature of towers that agree from the start."""


@cache
def lean_row(name: str) -> Method:
    return lean(METHODS[name])


def losses_of(objective: Objective, method: Method) -> Losses:
    return objective(batch_for(method), answers_for(method))


@pytest.mark.parametrize("name", METHODS)
def test_a_row_is_the_same_after_yaml(name: str) -> None:
    assert from_plain(Method, to_plain(METHODS[name])) == METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_has_its_source(name: str) -> None:
    assert "arXiv:" in METHODS[name].cite


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_loss_and_another_seed_another(name: str) -> None:
    method = lean_row(name)
    first, again, other = (losses_of(objective_for(method, seed).eval(), method).total for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    """Averages and teachers get none, nor do their targets; every trained parameter has one."""
    method = lean_row(name)
    objective, answers = objective_for(method), answers_for(method)
    given = [tensor.requires_grad_() for tokens in answers.values() for tensor in (tokens.rows, tokens.pooled)]
    represented = objective.represent(batch_for(method), answers)
    for term, target in represented.targets.items():
        wanted = method.terms[term].target
        if isinstance(wanted, Encoded) and isinstance(method.encoders[wanted.encoder], Ema):
            assert not target.rows.requires_grad
    objective.score(represented).total.backward()
    slow = ["projectors.averaged.", *(f"encoders.{name}." for name in method.named(Ema))]
    if all(isinstance(term.predictor, Aligned) for term in method.terms.values()):
        slow.append("encoders.student.backbone.norm.")  # blocks are read before it
    for key, parameter in objective.named_parameters():
        trained = not key.startswith(tuple(slow))
        assert (parameter.grad is not None) == trained == parameter.requires_grad, key
    assert len(given) == 2 * len(answers) and bool(method.named(Frozen)) == bool(given)


def random_loss(term: Term) -> tuple[float, float] | None:
    """What a term costs before anything is learned, and how far from it chance may lead; None where its predictor's
    first guess has no size of its own (a squared error of a random decoder)."""
    likelihood = term.likelihood
    if isinstance(likelihood, Boltzmann):
        if isinstance(term.target, Table):
            return math.log(CLASSES), 0.1
        if likelihood.temperature_is == "learned" or likelihood.over == "queue":
            return None
        return {"batch": (math.log(BATCH), 1.6), "tokens": (math.log(36), 1.5)}[likelihood.over]
    if isinstance(likelihood, CrossCorrelation):
        return None
    if isinstance(likelihood, Sigmoid):
        return math.log1p(math.exp(10)) + (BATCH - 1) * math.log1p(math.exp(-10)), 5.0  # a cosine weighs ten
    if isinstance(likelihood, Bernoulli):
        return math.log(2), 0.05
    if isinstance(likelihood, Categorical):
        return math.log(term.target.vocabulary if isinstance(term.target, Spelled) else CODES), 0.2
    if isinstance(likelihood, Scores):
        return math.log(CLASSES), 0.1
    if isinstance(likelihood, Prototypes):
        whole = math.log(likelihood.count)  # a cross-entropy of about that, and an entropy that lacks less than that
        return 1.5 * whole, 0.6 * whole
    if isinstance(likelihood, Centred):
        return math.log(32), 1.6  # over the codes of a lean row, whose cosines have a deviation of 1 / 16
    if likelihood.form == "cosine":
        return 0.0, 0.4
    if isinstance(term.target, Hog):
        return 1 / 9, 0.5
    return (1.0, 1.5) if isinstance(term.target, Pixels) or term.target.norm == "layer" else None


def sharp_loss(represented: Represented, key: str) -> float:
    """What ignorance costs at a temperature that makes it sure of itself, far more than ln B: the cross-entropies of
    these very rows, pair by pair."""
    guesses = represented.guesses[key][:, 0].detach().double()
    targets = represented.targets[key].rows[:, 0].detach().double()
    logits = [[float(guess @ target / guess.norm() / target.norm()) / SHARP for target in targets] for guess in guesses]
    costs = []
    for sample in range(BATCH):
        for scores in (logits[sample], [row[sample] for row in logits]):
            most = max(scores)
            costs.append(most + math.log(sum(math.exp(one - most) for one in scores)) - scores[sample])
    return sum(costs) / len(costs)


@pytest.mark.parametrize("name", METHODS)
def test_first_losses_are_those_of_ignorance(name: str) -> None:
    """ln K over K categories, ln B over a batch of B, ln M over M tokens, no cosine, and the variance of targets that
    were brought to variance 1 (a decoder's guess has a variance of its own, at most about 1.5)."""
    method = lean_row(name)
    objective = objective_for(method)
    losses = losses_of(objective, method)
    for key, term in method.terms.items():
        expected = random_loss(term)
        if isinstance(term.likelihood, Boltzmann) and term.likelihood.temperature == SHARP:
            expected = sharp_loss(objective.represent(batch_for(method), answers_for(method)), key), 1e-3
        if expected is not None:
            assert losses.terms[key].item() == pytest.approx(expected[0], abs=expected[1]), key


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_on_one_batch_in_bf16_as_well(name: str) -> None:
    method = lean_row(name)
    objective, batch, answers = objective_for(method), batch_for(method), answers_for(method)
    objective.training_mode()
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=2e-3)
    moving = remembers(method)
    seen: list[float] = []
    for step in range(8):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            represented = objective.represent(batch, answers)
        losses = objective.score(represented)
        assert losses.total.dtype == torch.float32
        losses.total.backward()
        optimiser.step()
        if moving:
            objective.after_skip()
        else:
            objective.after_step(step, 8)
        seen.append(losses.total.item())
    assert math.isfinite(seen[-1]) and seen[-1] < seen[0]


@pytest.mark.parametrize("name", METHODS)
def test_the_collapse_monitor_is_quiet_for_good_rows(name: str) -> None:
    watched = losses_of(objective_for(lean_row(name)), lean_row(name)).watched
    spreads = {key: value.item() for key, value in watched.items() if key.startswith("spread/")}
    assert all(value > COLLAPSED for value in spreads.values()), spreads


def test_the_collapse_monitor_is_loud_for_a_legal_row_that_collapses() -> None:
    """Self-distillation from an average that does not lag: the target follows every step, so a constant wins."""
    row = METHODS["dense_distillation"]
    target = Encoded(encoder="average", rows="pooled", space="raw")
    term = dataclasses.replace(row.terms["features"], target=target, likelihood=Gaussian(form="squared"))
    encoders = {"student": Trained(), "average": Ema(of="student", momentum=0.0, end=0.0)}
    method = dataclasses.replace(row, encoders=encoders, terms={"features": term})
    objective, batch = objective_for(method), batch_for(method)
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    spreads: list[Tensor] = []
    for step in range(60):
        optimiser.zero_grad()
        losses = objective(batch, {})
        losses.total.backward()
        optimiser.step()
        objective.after_step(step, 60)
        spreads.append(losses.watched["spread/features"])
    assert spreads[-1].item() < COLLAPSED < spreads[0].item()
