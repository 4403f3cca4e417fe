"""Gradient shares and cosines against autograd, adaptive weights, teacher dropping, statistics, and the monitors."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from onestage.methods import METHODS
from onestage.objective import Answers, Balance, Method, Objective, shares
from onestage.objective.balance import Taps
from onestage.objective.left_out import drop_terms
from onestage.objective.monitor import spread
from onestage.ops import place_of
from onestage.spec import UserError
from onestage.targets import Encoded
from onestage.targets.encoded import resampled
from onestage.targets.statistics import Statistics
from onestage.types import Represented, Target, Tokens
from small import lean
from test_objective import VIT, answers_for, batch_for, objective_for

M3I = lean(METHODS["m3i"])


def products_of(objective: Objective, method: Method) -> dict[tuple[str, str], torch.Tensor]:
    objective(batch_for(method), answers_for(method)).total.backward()
    objective.taps.settle()
    return objective.taps.read()


def test_shares_and_cosines_are_those_of_autograd() -> None:
    objective, batch = objective_for(M3I).eval(), batch_for(M3I)
    found = shares(products_of(objective, M3I))
    whole: list[torch.Tensor] = []
    objective.encoder("student").register_forward_hook(lambda *given: whole.extend((given[2].rows, given[2].pooled)))
    losses = objective(batch, {})
    flat = {}
    for name, loss in losses.terms.items():
        flows = torch.autograd.grad(loss, whole, retain_graph=True, allow_unused=True)
        flat[name] = torch.cat(
            [f.flatten() if f is not None else torch.zeros_like(w).flatten() for f, w in zip(flows, whole, strict=True)]
        )
    total = sum(float(flow.norm()) for flow in flat.values())
    for name, flow in flat.items():
        assert float(found[f"share/{name}"]) == pytest.approx(float(flow.norm()) / total, rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(flat["own"], flat["category1"], dim=0)
    assert float(found["cosine/own/category1"]) == pytest.approx(float(cosine), abs=1e-5)


def test_taps_leave_the_total_gradient_alone() -> None:
    objective, plain = objective_for(M3I), objective_for(M3I)
    products_of(objective, M3I)
    plain.taps.tap = lambda term, tokens: tokens
    plain(batch_for(M3I), {}).total.backward()
    for (name, one), other in zip(objective.named_parameters(), plain.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name, atol=1e-7, rtol=1e-5)


def test_a_balance_brings_gradients_to_the_size_of_the_reference() -> None:
    method = dataclasses.replace(M3I, balance=Balance(reference="own", momentum=0.0, most=1e6))
    objective = objective_for(method).eval()
    objective.after_step(0, 10, products_of(objective, method))
    after = products_of(objective, method)
    norms = {term: float(after[term, term].sqrt()) for term in method.terms}
    assert norms == pytest.approx(dict.fromkeys(norms, norms["own"]), rel=1e-4)
    assert float(objective.weights.factor[0]) == 1.0
    assert "weights.factor" in objective.state_dict() and "weights.factor" not in objective_for(M3I).state_dict()


def test_a_balance_by_a_term_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no term 'dense'"):
        dataclasses.replace(M3I, balance=Balance(reference="dense"))


def test_dropped_terms_leave_every_sample_one() -> None:
    """A table's target too, whose rows are those of the classes and not of samples."""
    shares = {"own": 0.9, "category1": 0.9}
    terms = {name: dataclasses.replace(M3I.terms[name], dropped=share) for name, share in shares.items()}
    method = dataclasses.replace(M3I, terms=terms)
    torch.manual_seed(0)
    targets = {"own": Target(torch.zeros(500, 3, 2), None, None), "category1": Target(torch.zeros(7, 2), None, None)}
    guesses = {"own": torch.zeros(500, 3, 2), "category1": torch.zeros(500, 1, 2)}
    represented = Represented(guesses, targets)
    dropped = drop_terms(method, represented).targets
    weights = [target.weight for target in dropped.values() if target.weight is not None]
    assert [weight.shape for weight in weights] == [(500, 3), (500, 1)]
    kept = torch.stack([weight[:, 0] for weight in weights])
    assert (kept.sum(dim=0) >= 1).all() and 0.5 < float(kept.mean()) < 0.6
    assert drop_terms(M3I, represented) is represented


def test_cosines_do_not_depend_on_which_gradient_comes_first() -> None:
    """One term reads the rows before the pooled row, another the pooled row alone, a third both the other way."""
    place = place_of(torch.arange(3).expand(2, -1))
    made = torch.randn(2, 3, 4, requires_grad=True) * 1.0, torch.randn(2, 4, requires_grad=True) * 1.0
    tokens = Tokens(*made, place, (1, 3), None)
    taps = Taps({"one": "x", "two": "x", "three": "x"})
    one, two, three = (taps.tap(name, tokens) for name in ("one", "two", "three"))
    rows, pooled = torch.randn(2, 3, 4), torch.randn(2, 4)
    first = (one.rows * rows).sum() + (one.pooled * pooled).sum()
    last = (three.pooled * pooled).sum() + (three.rows * rows).sum()
    (first + (two.pooled * pooled).sum() + last).backward()
    taps.settle()
    found = shares(taps.read())
    norm = float((rows.square().sum() + pooled.square().sum()).sqrt())
    assert float(found["cosine/one/three"]) == pytest.approx(1.0, abs=1e-6)
    assert float(found["cosine/one/two"]) == pytest.approx(float(pooled.norm()) / norm, abs=1e-6)


def test_statistics_standardise_by_what_came_before() -> None:
    made, rows = Statistics(3), 5 + 2 * torch.randn(4, 200, 3, generator=torch.Generator().manual_seed(1))
    first = made(rows)
    torch.testing.assert_close(first.mean(dim=(0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.var(dim=(0, 1), correction=0), torch.ones(3), atol=1e-3, rtol=0)
    made.pending.clear()  # as after a skipped step
    made.commit()
    assert int(made.steps) == 0
    made(rows)
    made.commit()
    made(3 * rows)
    made.commit()
    mean = rows.mean(dim=(0, 1))
    torch.testing.assert_close(made.first, 0.99 * mean + 0.01 * 3 * mean, atol=1e-4, rtol=1e-4)


def test_a_teacher_of_another_grid_is_resampled_where_that_was_asked_for() -> None:
    fd = METHODS["fd"]
    finer = {ask: resampled(tokens, (12, 12)) for ask, tokens in answers_for(fd).items()}
    models, teachers = {"student": VIT}, {"teacher": Answers((12, 12), 24, 40)}
    with pytest.raises(UserError, match="6x6 but the grid of 'teacher' is 12x12"):
        Objective(fd, models, teachers)
    target = Encoded(encoder="teacher", rows="all+cls", space="raw", norm="standard", fit="resample")
    term = dataclasses.replace(fd.terms["distil"], target=target)
    method = dataclasses.replace(fd, terms={"distil": term})
    objective = Objective(method, models, teachers)
    represented = objective.represent(batch_for(method), finer)
    assert represented.targets["distil"].rows.shape == represented.guesses["distil"].shape == (4, 37, 40)
    constant = next(iter(finer.values()))
    constant = constant._replace(rows=torch.ones_like(constant.rows))
    torch.testing.assert_close(resampled(constant, (4, 9)).rows, torch.ones(4, 36, 40))


def test_spread_tells_directions_at_random_from_a_collapse() -> None:
    rows = torch.randn(64, 5, 32, generator=torch.Generator().manual_seed(2))
    assert float(spread(rows)) == pytest.approx(1.0, abs=0.05)
    assert float(spread(torch.ones(64, 5, 32) + 1e-4 * rows)) < 0.01


def test_the_bound_is_the_entropy_of_the_candidates_minus_the_loss() -> None:
    clip = METHODS["clip"]
    losses = objective_for(clip)(batch_for(clip), {})
    expected = math.log(4) - losses.terms["pair"].item()
    assert losses.watched["bound/pair"].item() == pytest.approx(expected, abs=1e-5)
