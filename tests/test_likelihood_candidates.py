"""Boltzmann likelihoods over tokens and a queue, and the decorrelation of UniGrad, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onestage.likelihood import Boltzmann, Decorrelation, QueueLikelihood, UniGrad
from onestage.spec import UserError
from onestage.types import Target


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


def test_tokens_are_told_apart_inside_their_own_image() -> None:
    guess, rows = draw(3, 5, 4, seed=0).requires_grad_(), draw(3, 5, 4, seed=1).requires_grad_()
    weight = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    fast = Boltzmann("tokens", temperature=0.3).build()(guess, Target(rows, None, weight))
    g, r = guess.detach().double().requires_grad_(), rows.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for b in range(3):
        for i in range(5):
            logits = [cosine(g[b, i], r[b, j]) / 0.3 for j in range(5)]
            total = total + weight[b, i].double() * (torch.stack(logits).exp().sum().log() - logits[i])
    slow = total / weight.double().sum()
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(gradients(fast, guess, rows), gradients(slow, g, r), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6)


def test_a_single_token_has_nothing_to_be_told_from() -> None:
    with pytest.raises(UserError, match="two rows a sample"):
        Boltzmann("tokens").build()(torch.zeros(2, 1, 4), Target(torch.zeros(2, 1, 4), None, None))


def queue_of(size: int) -> QueueLikelihood:
    torch.manual_seed(3)
    made = Boltzmann("queue", temperature=0.2, size=size).build(4)
    assert isinstance(made, QueueLikelihood)
    return made


def test_a_queue_is_infonce_against_earlier_targets() -> None:
    likelihood = queue_of(6)
    guess, rows = draw(3, 1, 4, seed=4).requires_grad_(), draw(3, 1, 4, seed=5)
    fast = likelihood(guess, Target(rows, None, None))
    g, r, queue = guess.detach().double().requires_grad_(), rows.double(), likelihood.queue.double()
    losses = []
    for b in range(3):
        right = cosine(g[b, 0], r[b, 0]) / 0.2
        wrong = [cosine(g[b, 0], key) / 0.2 for key in queue]
        losses.append(torch.stack([right, *wrong]).exp().sum().log() - right)
    slow = torch.stack(losses).mean()
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(fast, guess)[0].double(), gradients(slow, g)[0], rtol=1e-4, atol=1e-6)


def test_a_queue_is_first_in_first_out_and_forgets_a_skipped_step() -> None:
    likelihood, keys = queue_of(5), draw(8, 1, 4, seed=6)
    unit = torch.nn.functional.normalize(keys[:, 0], dim=-1)
    before = likelihood.queue.clone()
    likelihood(keys[:3].clone().requires_grad_(), Target(keys[:3], None, None))
    torch.testing.assert_close(likelihood.queue, before)
    likelihood.after_skip()
    likelihood.after_step()
    torch.testing.assert_close(likelihood.queue, before)
    for start in (0, 3, 6):
        likelihood(keys[start : start + 3].clone().requires_grad_(), Target(keys[start : start + 3], None, None))
        likelihood.after_step()
    # eight keys have passed through five places: the last five are there, the oldest at `start`
    order = [(int(likelihood.start) + place) % 5 for place in range(5)]
    torch.testing.assert_close(likelihood.queue[order], unit[3:])
    with torch.no_grad():
        likelihood(keys[:3], Target(keys[:3], None, None))
    again = queue_of(5)
    again.load_state_dict(likelihood.state_dict())
    torch.testing.assert_close(again.queue, likelihood.queue)
    assert int(again.start) == int(likelihood.start) == 8 % 5


def test_looking_without_learning_leaves_a_queue_alone() -> None:
    likelihood, keys = queue_of(5), draw(3, 1, 4, seed=7)
    before = likelihood.queue.clone()
    with torch.no_grad():
        likelihood(keys, Target(keys, None, None))
    likelihood.after_step()
    torch.testing.assert_close(likelihood.queue, before)


@pytest.mark.parametrize("over", ["tokens", "queue"])
def test_ignorance_costs_the_logarithm_of_the_candidates(over: str) -> None:
    likelihood = Boltzmann(over, temperature=1.0, size=9, normalise="none").build(4)
    rows = torch.zeros(2, 1 if over == "queue" else 7, 4)
    target = Target(rows, None, None)
    expected = {"tokens": 7, "queue": 10}[over]
    assert likelihood.candidates(target) == expected
    assert float(likelihood(rows, target)) == pytest.approx(math.log(expected), abs=1e-6)


def test_unigrad_is_the_quadratic_form_of_the_correlation() -> None:
    guess, rows = draw(3, 5, 4, seed=8).requires_grad_(), draw(3, 5, 4, seed=9).requires_grad_()
    made = UniGrad(weight=0.7).build()
    assert isinstance(made, Decorrelation)
    fast = made(guess, Target(rows, None, None))
    p, t = guess.detach().double().flatten(0, 1).requires_grad_(), rows.detach().double().flatten(0, 1)
    total = torch.zeros((), dtype=torch.float64)
    for n in range(15):  # the (rows x rows) form of SiameseIM's code: p_n^T (sum_m t_m t_m^T / 15) p_n
        for m in range(15):
            total = total + (p[n] @ t[m]).square() / 15
    slow = 0.7 * total / 15 / 4
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-7)
    mine, theirs = gradients(fast, guess)[0], gradients(slow, p)[0]
    torch.testing.assert_close(mine.flatten(0, 1).double(), theirs, rtol=1e-4, atol=1e-7)
    assert torch.autograd.grad(made(guess, Target(rows, None, None)), rows, allow_unused=True)[0] is None
