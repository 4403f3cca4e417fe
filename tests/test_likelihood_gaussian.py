"""Gaussian likelihood against slow formulas in float64, and its identities."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from onestage.likelihood import Gaussian, LikelihoodSpec
from onestage.spec import UserError, from_plain, spec
from onestage.types import Target


@spec
class Holder:
    likelihood: LikelihoodSpec


FORMS = [Gaussian("squared"), Gaussian("cosine")]
FORMS += [Gaussian("smooth_l1", beta) for beta in (0.0, 0.5, 1.0, 2.0)]


def slow_row(wanted: Gaussian, guess: Tensor, row: Tensor) -> Tensor:
    """One row's loss, value by value."""
    total = torch.zeros((), dtype=torch.float64)
    if wanted.form == "cosine":
        dot = sum(a * b for a, b in zip(guess, row, strict=True))
        sizes = [torch.sqrt(sum(a * a for a in vector)) for vector in (guess, row)]
        return -dot / (sizes[0] * sizes[1])
    for a, b in zip(guess, row, strict=True):
        d = a - b
        if wanted.form == "squared":
            total = total + d * d
        elif abs(float(d.detach())) < wanted.beta:
            total = total + d * d / (2 * wanted.beta)
        else:
            total = total + abs(d) - wanted.beta / 2
    return total / len(guess)


def slow(wanted: Gaussian, guess: Tensor, rows: Tensor, weight: Tensor | None) -> Tensor:
    top = torch.zeros((), dtype=torch.float64)
    bottom = 0.0
    for i in range(guess.shape[0]):
        for m in range(guess.shape[1]):
            w = 1.0 if weight is None else float(weight[i, m])
            top = top + w * slow_row(wanted, guess[i, m], rows[i, m])
            bottom += w
    return top / bottom


def draw(*shape: int, seed: int) -> Tensor:
    """Rows of very different lengths, none of them of length one."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator)
    return rows * torch.rand(*shape[:-1], 1, generator=generator).mul(3).add(0.1)


@pytest.mark.parametrize("wanted", FORMS, ids=lambda wanted: f"{wanted.form}-{wanted.beta}")
@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_value_and_gradients_equal_the_slow_formula(wanted: Gaussian, weighted: bool) -> None:
    guess, rows = draw(3, 4, 5, seed=0), draw(3, 4, 5, seed=1)
    weight = torch.tensor([[1, 0, 0, 0.5], [1, 1, 1, 1], [0, 0, 0, 2.0]]) if weighted else None
    fast_in = [guess.clone().requires_grad_(), rows.clone().requires_grad_()]
    slow_in = [guess.double().requires_grad_(), rows.double().requires_grad_()]
    fast = wanted.build()(fast_in[0], Target(fast_in[1], None, weight))
    truth = slow(wanted, slow_in[0], slow_in[1], weight)
    fast.backward()
    truth.backward()
    assert float(fast.detach()) == pytest.approx(float(truth.detach()), rel=1e-6)
    for ours, theirs in zip(fast_in, slow_in, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-5, atol=1e-7)


def test_squared_is_twice_one_minus_cosine_for_unit_rows() -> None:
    guess, rows = (torch.nn.functional.normalize(draw(4, 3, 16, seed=s), dim=-1) for s in (2, 3))
    squared = Gaussian("squared").build()(guess, Target(rows, None, None)) * 16
    cosine = Gaussian("cosine").build()(guess, Target(rows, None, None))
    torch.testing.assert_close(squared, 2 + 2 * cosine)


@pytest.mark.parametrize(("distance", "loss"), [(1.0, 0.25), (3.0, 2.0)])
def test_smooth_l1_with_beta_2_divides_by_beta(distance: float, loss: float) -> None:
    target = Target(torch.zeros(1, 1, 3), None, None)
    assert float(Gaussian("smooth_l1", 2.0).build()(torch.full((1, 1, 3), distance), target)) == loss


def test_cosine_of_equal_rows_is_minus_one() -> None:
    rows = draw(2, 5, 8, seed=4)
    loss = Gaussian("cosine").build()(3 * rows, Target(rows, None, None))
    assert float(loss) == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize("wanted", FORMS, ids=lambda wanted: f"{wanted.form}-{wanted.beta}")
def test_zero_rows_are_finite_with_small_gradients(wanted: Gaussian) -> None:
    guess = torch.zeros(2, 2, 4, requires_grad=True)
    rows = torch.zeros(2, 2, 4)
    rows[0, 0, 0] = 1
    rows.requires_grad_()
    loss = wanted.build()(guess, Target(rows, None, None))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    for gradient in (guess.grad, rows.grad):
        assert torch.isfinite(gradient).all() and gradient.abs().max() <= 1


def test_rows_of_weight_zero_change_nothing_and_no_rows_cost_nothing() -> None:
    guess, rows = draw(2, 3, 4, seed=5), draw(2, 3, 4, seed=6)
    weight = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    changed = guess + 100 * (1 - weight).unsqueeze(-1)
    likelihood = Gaussian("squared").build()
    assert torch.equal(likelihood(guess, Target(rows, None, weight)), likelihood(changed, Target(rows, None, weight)))
    leaf = guess.clone().requires_grad_()
    nothing = likelihood(leaf, Target(rows, None, torch.zeros(2, 3)))
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("wanted", FORMS, ids=lambda wanted: f"{wanted.form}-{wanted.beta}")
def test_bf16_and_autocast_are_computed_in_fp32(wanted: Gaussian) -> None:
    guess, rows = draw(2, 3, 8, seed=7).bfloat16(), draw(2, 3, 8, seed=8).bfloat16()
    likelihood = wanted.build()
    loss = likelihood(guess, Target(rows, None, None))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, likelihood(guess.float(), Target(rows.float(), None, None)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss, likelihood(guess, Target(rows, None, None)))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(2, 1, 4\).*\(2, 3, 4\)"):
        Gaussian().build()(torch.zeros(2, 1, 4), Target(torch.zeros(2, 3, 4), None, None))


def test_spec_states_its_nature_and_reads_from_plain() -> None:
    read = from_plain(Holder, {"likelihood": {"kind": "gaussian", "form": "smooth_l1", "beta": 2}}).likelihood
    assert read == Gaussian("smooth_l1", 2.0)
    assert (read.scope, read.regulariser, read.build().scope) == ("sample", "none", "sample")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Gaussian("smooth_l1", -1.0)
