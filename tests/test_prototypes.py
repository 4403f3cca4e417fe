"""Prototypes, Sinkhorn's balance and mean entropy maximisation against loops in float64, and MSN as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onestage.likelihood import Prototypes, PrototypesLikelihood
from onestage.likelihood.sinkhorn import balanced
from onestage.methods import METHODS
from onestage.recipes import recipe
from onestage.spec import UserError
from onestage.types import Piece, Target
from small import lean
from test_objective import batch_for, objective_for


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(**changes: float) -> PrototypesLikelihood:
    torch.manual_seed(0)
    return Prototypes(count=5, **changes).build(4).double()


def choice(row: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """softmax of cosines over a temperature, one by one."""
    cosines = [sum(row * one) / (sum(row**2) ** 0.5 * sum(one**2) ** 0.5) for one in prototypes]
    powers = [(cosine / temperature).exp() for cosine in cosines]
    return torch.stack([power / sum(powers) for power in powers])


def evened(choices: list[Tensor], iterations: int) -> list[Tensor]:
    """Sinkhorn's iterations as SwAV's appendix writes them: over the sum, prototypes by K, rows by B, times B."""
    rows, count = len(choices), len(choices[0])
    table = [[float(value) / rows for value in row] for row in choices]
    for _ in range(iterations):
        for k in range(count):
            column = sum(table[r][k] for r in range(rows))
            for r in range(rows):
                table[r][k] /= column * count
        for r in range(rows):
            line = sum(table[r])
            table[r] = [value / line / rows for value in table[r]]
    return [torch.tensor(row, dtype=torch.float64) * rows for row in table]


def test_sinkhorn_equals_loops_and_uses_all_alternatives() -> None:
    choices = (4 * draw(6, 3, seed=0)).softmax(dim=-1)
    for iterations in (0, 1, 3):
        slow = torch.stack(evened(list(choices), iterations))
        torch.testing.assert_close(balanced(choices, iterations), slow, rtol=1e-9, atol=1e-12)
    even = balanced(choices, 200)
    torch.testing.assert_close(even.sum(dim=0), torch.full((3,), 2.0).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(even.sum(dim=1), torch.ones(6).double())
    gone = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert torch.equal(balanced(gone, 3), gone)


def test_prototypes_equal_loops() -> None:
    likelihood = made(temperature=0.2, sharpness=0.5, sinkhorn=2)
    guess, rows = draw(3, 2, 4, seed=1).requires_grad_(), draw(3, 2, 4, seed=2)
    weight = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    fast = likelihood(guess, Target(rows, None, weight))
    given = likelihood.prototypes
    fixed = given.detach()
    sharp = evened([choice(row, fixed, 0.1) for row in rows.flatten(0, 1)], 2)
    costs = [-(q * choice(row, given, 0.2).log()).sum() for q, row in zip(sharp, guess.flatten(0, 1), strict=True)]
    slow = sum(w * one for w, one in zip(weight.flatten(), costs, strict=True)) / weight.sum()
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(fast, [guess, given]), torch.autograd.grad(slow, [guess, given]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)
    with pytest.raises(UserError, match="row with row"):
        likelihood(guess, Target(rows[:, :1], None, None))


def test_mean_entropy_is_of_all_guesses_at_once() -> None:
    likelihood = made(me_max=0.7)
    guesses = [draw(3, 1, 4, seed=3).requires_grad_(), draw(3, 2, 4, seed=4).requires_grad_()]
    rows = [row for guess in guesses for row in guess.flatten(0, 1)]
    used = sum(choice(row, likelihood.prototypes, 0.1) for row in rows) / len(rows)
    slow = 0.7 * (math.log(5) + sum(share * share.log() for share in used))
    fast = likelihood.together(guesses)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(fast, [*guesses, likelihood.prototypes]),
        torch.autograd.grad(slow, [*guesses, likelihood.prototypes]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_mean_entropy_is_nothing_for_equal_use_and_ln_k_for_one_prototype() -> None:
    likelihood = Prototypes(count=4, temperature=0.01).build(4)
    with torch.no_grad():
        likelihood.prototypes.copy_(torch.eye(4))
    assert likelihood.together([torch.eye(4).unsqueeze(1)]).item() == pytest.approx(0, abs=1e-5)
    assert likelihood.together([torch.eye(4)[:1].expand(4, 1, 4)]).item() == pytest.approx(math.log(4), abs=1e-5)


def test_msn_is_the_mean_over_its_anchors_and_one_entropy() -> None:
    method = lean(METHODS["msn"])
    objective, batch = objective_for(method).double(), batch_for(method)
    batch = batch._replace(views={name: v._replace(pixels=v.pixels.double()) for name, v in batch.views.items()})
    objective.training_mode()
    hidden = batch.hidden["masked/image"]
    masked = Piece(batch.views["view2"], hidden=hidden, hides=int(hidden[0].sum()), mode="drop")
    pieces = {"masked": masked} | {name: Piece(batch.views[name]) for name in ("local1", "local2")}
    student, heads = objective.encoder("student"), objective.projectors
    anchors = [heads.trained["head"](student({"image": piece})).pooled for piece in pieces.values()]
    whole = objective.encoder("average")({"image": Piece(batch.views["view1"])})
    likelihood = objective.likelihood("masked_view1")
    assert isinstance(likelihood, PrototypesLikelihood) and len(method.terms) == 3
    codes = likelihood.prototypes.detach()
    targets = evened([choice(row, codes, 0.1 * 0.25) for row in heads.averaged["average_head"](whole).pooled], 3)
    guessed = [[choice(row, codes, 0.1) for row in anchor] for anchor in anchors]
    costs = [-(q * p.log()).sum() for rows in guessed for q, p in zip(targets, rows, strict=True)]
    used = sum(p for rows in guessed for p in rows) / 12
    slow = sum(costs) / 12 + math.log(len(codes)) + (used * used.log()).sum()
    found = objective(batch, {})
    torch.testing.assert_close(found.total, slow, rtol=1e-6, atol=1e-6)
    assert [name for name, parameter in objective.named_parameters() if "prototypes" in name] == [
        "likelihoods.masked_view1.prototypes"
    ]


def test_the_numbers_of_the_paper() -> None:
    made = recipe("msn_s16")
    assert len(made.method.terms) == 11 and sum(term.weight for term in made.method.terms.values()) == pytest.approx(1)
    codes, body = made.optimiser.groups["prototypes"], made.optimiser.groups["all"]
    assert (codes.weight_decay, codes.clip, body.last_weight_decay, body.clip) == (0.0, None, 0.4, 3.0)
    last = made.schedule.at(999, 1000, 1e-3)
    assert last == pytest.approx(1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * (999 - 19) / (1250 - 19))) / 2)
    target = made.method.terms["masked_view1"].likelihood
    assert isinstance(target, Prototypes) and (target.count, target.sharpness, target.sinkhorn) == (1024, 0.25, 3)
