"""Boltzmann likelihoods against slow formulas in float64, open_clip's loss, and cases worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onestage.likelihood import Boltzmann, LikelihoodSpec
from onestage.spec import UserError, from_plain, spec
from onestage.types import Target


@spec
class Holder:
    likelihood: LikelihoodSpec


def draw(*shape: int, seed: int) -> Tensor:
    """Rows of very different lengths, none of them of length one."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator)
    return rows * torch.rand(*shape[:-1], 1, generator=generator).mul(3).add(0.1)


def unit(row: Tensor) -> Tensor:
    return row / torch.sqrt(sum(value * value for value in row))


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(a, b, strict=True)), torch.zeros((), dtype=torch.float64))


def slow_batch(wanted: Boltzmann, guess: Tensor, rows: Tensor, scale: Tensor, target: Target) -> Tensor:
    """Pair by pair, from both sides."""
    b = len(guess)
    ids = list(range(b)) if target.identity is None else target.identity.tolist()
    weight = [1.0] * b if target.weight is None else target.weight[:, 0].tolist()
    if wanted.normalise != "none":
        guess, rows = torch.stack([unit(g) for g in guess]), torch.stack([unit(r) for r in rows])
    top = torch.zeros((), dtype=torch.float64)
    sides = [(guess, rows), (rows, guess)] if wanted.sides == "both" else [(guess, rows)]
    for mine, others in sides:
        for i in range(b):
            candidates, positives = [], []
            for j in range(b):
                same = ids[i] == ids[j]
                if j != i and (weight[j] == 0 or (same and wanted.same_text == "ignore")):
                    continue
                candidates.append(j)
                if j == i or (same and wanted.same_text == "positive"):
                    positives.append(j)
            energies = {j: torch.exp(scale * dot(mine[i], others[j])) for j in candidates}
            partition = sum(energies.values())
            surprise = -sum(torch.log(energies[j] / partition) for j in positives) / len(positives)
            top = top + weight[i] * surprise / len(sides)
    return top / sum(weight)


WEIGHT = torch.tensor([[1.0], [0.0], [0.5], [2.0], [1.0], [0.0]])
IDENTITY = torch.tensor([4, 4, 7, 4, 1, 7])


@pytest.mark.parametrize("same_text", ["positive", "ignore", "negative"])
@pytest.mark.parametrize("sides", ["both", "guess"])
@pytest.mark.parametrize("normalise", [None, "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("identity", [None, IDENTITY], ids=["distinct", "alike"])
def test_batch_value_and_gradients_equal_the_slow_formula(same_text, sides, normalise, weight, identity) -> None:
    wanted = Boltzmann("batch", temperature=0.5, same_text=same_text, sides=sides, normalise=normalise)
    guess, rows = draw(6, 1, 4, seed=0), draw(6, 1, 4, seed=1)
    fast_in = [guess.clone().requires_grad_(), rows.clone().requires_grad_()]
    slow_in = [guess[:, 0].double().requires_grad_(), rows[:, 0].double().requires_grad_()]
    log_scale = torch.tensor(math.log(2.0), dtype=torch.float64, requires_grad=True)
    likelihood = wanted.build()
    fast = likelihood(fast_in[0], Target(fast_in[1], identity, weight))
    truth = slow_batch(wanted, *slow_in, log_scale.exp(), Target(slow_in[1], identity, weight))
    fast.backward()
    truth.backward()
    assert float(fast.detach()) == pytest.approx(float(truth.detach()), rel=2e-6)
    for ours, theirs in zip(fast_in, slow_in, strict=True):
        torch.testing.assert_close(ours.grad[:, 0], theirs.grad.float(), rtol=1e-4, atol=1e-6)
    assert float(likelihood.log_scale.grad) == pytest.approx(float(log_scale.grad), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("wanted", [Boltzmann("table", smoothing=0.1), Boltzmann("table", 0.2, normalise="both")])
@pytest.mark.parametrize("weighted", [False, True])
def test_table_value_and_gradients_equal_the_slow_formula(wanted: Boltzmann, weighted: bool) -> None:
    guess, table = draw(3, 2, 4, seed=2), draw(5, 4, seed=3)
    label = torch.tensor([4, 0, 2])
    weight = torch.tensor([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]]) if weighted else None
    fast_in = [guess.clone().requires_grad_(), table.clone().requires_grad_()]
    slow_in = [guess.double().requires_grad_(), table.double().requires_grad_()]
    fast = wanted.build()(fast_in[0], Target(fast_in[1], label, weight))
    scale = 1 / (wanted.temperature or 1.0)
    top, bottom = torch.zeros((), dtype=torch.float64), 0.0
    for i in range(3):
        for m in range(2):
            row, classes = slow_in[0][i, m], list(slow_in[1])
            if wanted.normalise == "both":
                row, classes = unit(row), [unit(c) for c in classes]
            energies = [torch.exp(scale * dot(row, c)) for c in classes]
            logs = [torch.log(energy / sum(energies)) for energy in energies]
            share = wanted.smoothing
            loss = -(1 - share) * logs[int(label[i])] - share * sum(logs) / len(logs)
            w = 1.0 if weight is None else float(weight[i, m])
            top, bottom = top + w * loss, bottom + w
    fast.backward()
    (top / bottom).backward()
    assert float(fast.detach()) == pytest.approx(float(top.detach() / bottom), rel=2e-6)
    for ours, theirs in zip(fast_in, slow_in, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-4, atol=1e-6)


def test_plain_clip_equals_open_clip() -> None:
    from open_clip.loss import ClipLoss

    guess, rows = draw(8, 1, 16, seed=4), draw(8, 1, 16, seed=5)
    ours_in, theirs_in = ([guess.clone().requires_grad_(), rows.clone().requires_grad_()] for _ in range(2))
    likelihood = Boltzmann("batch", same_text="negative").build()
    ours = likelihood(ours_in[0], Target(ours_in[1], torch.tensor([0, 0, 1, 2, 3, 4, 5, 6]), None))
    log_scale = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    image, text = (torch.nn.functional.normalize(x[:, 0], dim=-1) for x in theirs_in)
    theirs = ClipLoss()(image, text, log_scale.exp())
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(ours_in, theirs_in, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(likelihood.log_scale.grad.squeeze(), log_scale.grad, rtol=1e-4, atol=1e-7)


def test_without_information_the_loss_is_the_log_of_the_candidates() -> None:
    same = torch.ones(7, 1, 4)
    batch = Boltzmann("batch").build()(same, Target(same, None, None))
    assert float(batch.detach()) == pytest.approx(math.log(7), rel=1e-6)
    table = Boltzmann("table").build()(torch.zeros(3, 1, 4), Target(draw(10, 4, seed=6), torch.arange(3), None))
    assert float(table) == pytest.approx(math.log(10), rel=1e-6)


def test_equal_texts_by_hand() -> None:
    """Guess side at scale 1: guess 0 fits text 0, guess 1 none, guess 2 text 2; texts 0 and 1 are equal."""
    x, y, z = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    target = Target(torch.tensor([[x], [y], [z]]), torch.tensor([5, 5, 8]), None)
    guess = torch.tensor([[x], [[0.0, 0.0, 0.0]], [z]])
    # The logits are (1, 0, 0), (0, 0, 0), (0, 0, 1).
    spread, even, pair = math.log(math.e + 2), math.log(3), math.log(math.e + 1)
    by_hand = {
        "negative": (spread - 1) + even + (spread - 1),
        "positive": (spread - 1 / 2) + even + (spread - 1),
        "ignore": (pair - 1) + math.log(2) + (spread - 1),
    }
    for word, total in by_hand.items():
        loss = total / 3
        made = Boltzmann("batch", 1.0, same_text=word, sides="guess").build()(guess, target)
        assert float(made.detach()) == pytest.approx(loss, rel=1e-6), word


def test_a_row_of_weight_zero_is_nobodys_negative() -> None:
    guess, rows = draw(5, 1, 4, seed=9), draw(5, 1, 4, seed=10)
    weight = torch.tensor([[1.0], [1], [1], [0], [1]])
    kept = torch.tensor([0, 1, 2, 4])
    likelihood = Boltzmann("batch").build()
    with_it = likelihood(guess, Target(rows, None, weight))
    without = likelihood(guess[kept], Target(rows[kept], None, None))
    torch.testing.assert_close(with_it, without)
    nothing = likelihood(guess, Target(rows, None, torch.zeros(5, 1)))
    assert float(nothing.detach()) == 0.0


def test_learned_scale_is_clamped_after_the_step_and_can_leave_the_limit() -> None:
    likelihood = Boltzmann("batch", temperature=0.01).build()
    assert isinstance(likelihood.log_scale, torch.nn.Parameter)
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(100, rel=1e-5)
    with torch.no_grad():
        likelihood.log_scale.fill_(9.0)
    likelihood.after_step()
    assert float(likelihood.log_scale.detach()) == pytest.approx(math.log(100), rel=1e-6)
    likelihood(draw(4, 1, 4, seed=11), Target(draw(4, 1, 4, seed=12), None, None)).backward()
    assert likelihood.log_scale.grad.abs() > 1e-3
    with torch.no_grad():
        likelihood.log_scale.fill_(-1.0)
    likelihood.after_step()
    assert float(likelihood.log_scale.detach()) == 0.0


def test_fixed_scale_stays_and_is_saved_but_not_trained() -> None:
    likelihood = Boltzmann("batch", temperature=2.0, temperature_is="fixed").build()
    likelihood.after_step()
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.5)
    assert list(likelihood.parameters()) == []
    assert list(likelihood.state_dict()) == ["log_scale"]


@pytest.mark.parametrize("wanted", [Boltzmann("batch"), Boltzmann("table", 0.1)], ids=["batch", "table"])
def test_bf16_and_autocast_are_computed_in_fp32(wanted: Boltzmann) -> None:
    guess = draw(4, 1, 8, seed=13).bfloat16()
    rows = draw(4, 1, 8, seed=14).bfloat16() if wanted.over == "batch" else draw(5, 8, seed=14).bfloat16()
    identity = torch.tensor([0, 1, 1, 3])
    likelihood = wanted.build()
    loss = likelihood(guess, Target(rows, identity, None))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, likelihood(guess.float(), Target(rows.float(), identity, None)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss, likelihood(guess, Target(rows, identity, None)))


def test_zero_rows_are_finite_with_small_gradients() -> None:
    guess = torch.zeros(3, 1, 4, requires_grad=True)
    rows = draw(3, 1, 4, seed=15).requires_grad_()
    loss = Boltzmann("batch", temperature=1.0).build()(guess, Target(rows, None, None))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(3), rel=1e-6)
    assert guess.grad.abs().max() <= 1 and torch.isfinite(rows.grad).all()


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"over": "batch", "smoothing": 0.1}, "smoothing is for over: table"),
        ({"over": "table", "same_text": "ignore"}, "same_text and sides are for over: batch"),
        ({"over": "table", "sides": "guess"}, "same_text and sides are for over: batch"),
        ({"over": "batch", "temperature": 0.005}, "between 1 / max_scale = 0.01 and 1, not at 0.005"),
        ({"over": "batch", "temperature": 2.0}, "not at 2"),
        ({"over": "batch", "temperature": 0.0}, "greater than 0"),
        ({"over": "bank"}, "'batch', 'queue', 'tokens' or 'table'"),
    ],
)
def test_settings_that_do_nothing_or_cannot_work_are_refused(plain: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        from_plain(Holder, {"likelihood": {"kind": "boltzmann", **plain}})


def test_wrong_targets_are_refused() -> None:
    rows = torch.zeros(2, 3, 4)
    with pytest.raises(UserError, match="one row per sample"):
        Boltzmann("batch").build()(rows, Target(rows, None, None))
    with pytest.raises(UserError, match="takes a table target"):
        Boltzmann("table").build()(rows, Target(rows, torch.zeros(2, dtype=torch.int64), None))
    with pytest.raises(UserError, match="no labels"):
        Boltzmann("table").build()(rows, Target(torch.zeros(5, 4), None, None))


def test_spec_states_its_nature() -> None:
    batch, table = Boltzmann("batch"), Boltzmann("table")
    assert (batch.scope, batch.build().scope, batch.regulariser) == ("batch", "batch", "negatives")
    assert (table.scope, table.build().scope, table.regulariser) == ("sample", "sample", "negatives")
