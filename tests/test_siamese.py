"""The siamese rows: heads, the identity, cross-correlation, and both directions of a pair, against loops in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from full_width import steps
from onestage.encoders import Codes, Mlp
from onestage.likelihood import Centred, CrossCorrelation
from onestage.methods import METHODS
from onestage.objective import Method, Objective, add
from onestage.ops import place_of
from onestage.predictors import MLP, Same
from onestage.pretraining import Recipe
from onestage.recipes import recipe
from onestage.recipes.siamese import SIAMESE_ROWS
from onestage.spec import UserError, from_plain, to_plain
from onestage.types import POOLED, Target, Tokens, Wanted
from small import lean
from test_objective import batch_for, objective_for


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens_of(rows: Tensor, pooled: Tensor) -> Tokens:
    cells = torch.arange(rows.shape[1]).expand(rows.shape[0], -1)
    return Tokens(rows, pooled, place_of(cells), (2, rows.shape[1] // 2), None)


def standard(values: Tensor) -> Tensor:
    """One channel to mean 0 and variance 1."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return torch.stack([(value - mean) / (variance + 1e-5) ** 0.5 for value in values])


@torch.no_grad()
@pytest.mark.parametrize(("norm", "end"), [("none", "bias"), ("batch", "plain"), ("batch", "batch")])
def test_heads_equal_layers_written_out(norm: str, end: str) -> None:
    projector = Mlp(hidden=6, depth=2, out=3, activation="relu", norm=norm, end=end, of="both").build(4).double()
    for parameter in projector.parameters():
        nn.init.normal_(parameter)
    tokens = tokens_of(draw(3, 4, 4, seed=0), draw(3, 4, seed=1))
    found = projector(tokens)
    given = dict(projector.layers.named_parameters())
    rows = torch.cat([tokens.pooled[:, None], tokens.rows], dim=1).flatten(0, 1)
    hidden = rows @ given["0.weight"].T + given.get("0.bias", 0)
    if norm == "batch":
        scale, shift = given["1.norm.weight"], given["1.norm.bias"]
        hidden = torch.stack([standard(hidden[:, c]) * scale[c] + shift[c] for c in range(6)], dim=1)
    hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
    last = "3" if norm == "batch" else "2"
    out = hidden @ given[f"{last}.weight"].T + given.get(f"{last}.bias", 0)
    if end == "batch":
        out = torch.stack([standard(out[:, c]) for c in range(3)], dim=1)
    torch.testing.assert_close(found.rows, out.view(3, 5, 3)[:, 1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.pooled, out.view(3, 5, 3)[:, 0], rtol=1e-9, atol=1e-9)
    assert ("0.bias" in given) == (norm == "none") and (f"{last}.bias" in given) == (end == "bias")


def test_a_head_of_the_pooled_row_leaves_no_other() -> None:
    tokens = tokens_of(torch.randn(2, 4, 8), torch.randn(2, 8))
    pooled = Mlp(hidden=8, depth=2, out=3).build(8)(tokens)
    assert pooled.rows.shape == (2, 1, 3) and pooled.place.cell.tolist() == [[POOLED]] * 2
    rows = Mlp(hidden=8, depth=2, out=3, of="rows").build(8)(tokens)
    torch.testing.assert_close(rows.pooled, rows.rows.mean(dim=1))
    with pytest.raises(UserError, match="leaves the pooled row alone"):
        target = {"kind": "encoded", "encoder": "average", "rows": "all", "space": "raw"}
        plain = to_plain(METHODS["moco_v2"])
        plain["terms"]["key"] |= {"target": target, "predictor": {"kind": "relative"}}
        from_plain(Method, plain)


def test_the_same_rows_are_the_guess() -> None:
    tokens = tokens_of(torch.randn(2, 4, 8), torch.randn(2, 8))
    cells = torch.tensor([[POOLED, 2], [1, POOLED]])
    found = Same().build(8, 8, (2, 2))(tokens, Wanted(cells, (2, 2), None))
    expected = torch.stack([tokens.pooled[0], tokens.rows[0, 2], tokens.rows[1, 1], tokens.pooled[1]])
    assert torch.equal(found.flatten(0, 1), expected)
    with pytest.raises(UserError, match="8 values and the target's 4"):
        Same().build(8, 4, (2, 2))


def test_cross_correlation_equals_loops() -> None:
    first, second = draw(5, 1, 3, seed=0).requires_grad_(), draw(5, 1, 3, seed=1).requires_grad_()
    fast = CrossCorrelation(off_diagonal=0.1).build()(first, Target(second, None, None))
    a = torch.stack([standard(first[:, 0, c]) for c in range(3)], dim=1)
    b = torch.stack([standard(second[:, 0, c]) for c in range(3)], dim=1)
    slow = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            shared = sum(a[n, i] * b[n, j] for n in range(5)) / 5
            slow = slow + ((1 - shared) ** 2 if i == j else 0.1 * shared**2)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(fast, [first, second]), torch.autograd.grad(slow, [first, second]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    with pytest.raises(UserError, match="one row per sample"):
        CrossCorrelation().build()(draw(2, 2, 3, seed=0), Target(draw(2, 2, 3, seed=1), None, None))


def two_directions(name: str) -> tuple[Objective, list[tuple[Tensor, Tensor]], float]:
    """A lean row, its (guess, target) pairs of both directions, and its loss on one batch."""
    method = lean(METHODS[name])
    objective, batch = objective_for(method), batch_for(method)
    objective.training_mode()
    represented = objective.represent(batch, {})
    pairs = [
        (represented.guesses[key][:, 0].detach().double(), represented.targets[key].rows[:, 0].double())
        for key in method.terms
    ]
    assert not any(target.requires_grad for _, target in pairs)
    return objective, pairs, objective.score(represented).total.item()


def unit(row: Tensor) -> Tensor:
    return row / sum(value**2 for value in row) ** 0.5


def test_two_directions_of_byol_equal_its_formula() -> None:
    """2 - 2 cos of each direction, averaged over the batch and added up, but for the constant 4."""
    _, pairs, found = two_directions("byol")
    slow = 0.0
    for guess, target in pairs:
        for one, other in zip(guess, target, strict=True):
            slow += (2 - 2 * float(unit(one) @ unit(other))) / len(guess)
    assert found + 4 == pytest.approx(slow, abs=1e-5)


def test_two_directions_of_moco_v3_equal_its_formula() -> None:
    """2 tau times the cross-entropy of each query among the keys of the batch, added over both directions."""
    _, pairs, found = two_directions("moco_v3")
    slow = 0.0
    for guess, target in pairs:
        for place, one in enumerate(guess):
            logits = [float(unit(one) @ unit(other)) / 0.2 for other in target]
            slow += 2 * 0.2 * (math.log(sum(math.exp(value) for value in logits)) - logits[place]) / len(guess)
    assert found == pytest.approx(slow, abs=1e-5)


def test_both_directions_use_one_predictor_in_sums_too() -> None:
    objective, _, _ = two_directions("byol")
    assert objective.predictor("one") is objective.predictor("two") and list(objective.predictors) == ["one"]
    summed = add([(1.0, METHODS["byol"]), (0.5, METHODS["moco_v3"])])
    assert {name: term.shares for name, term in summed.terms.items()} == {
        "one": None,
        "two": "one",
        "moco_v3_one": None,
        "moco_v3_two": "moco_v3_one",
    }
    plain = to_plain(METHODS["byol"])
    plain["terms"]["two"]["shares"] = "three"
    with pytest.raises(UserError, match=r"terms.two.shares: 'three' is no term"):
        from_plain(Method, plain)


@pytest.mark.parametrize("made", [row for row in SIAMESE_ROWS if row.__name__ not in {"byol_b16", "barlow_twins_b16"}])
def test_the_setting_is_moco_v3s(made) -> None:
    paper = recipe(made.__name__)
    body, stem = paper.optimiser.groups["all"], paper.optimiser.groups["stem"]
    assert (body.lr, body.weight_decay, body.decay_vectors, body.betas) == (2.4e-3, 0.1, "always", (0.9, 0.999))
    batch = 1024 if made.__name__ == "densecl_b16" else 4096
    assert (paper.batch, paper.epochs, stem.freeze_until > 10**9) == (batch, 300, True)
    assert paper.schedule.warmup == pytest.approx(40 / 300)


def test_the_others_have_a_lars_of_their_own() -> None:
    for name, batch, rate, decay in (("byol_b16", 4096, 3.2, 1.5e-6), ("barlow_twins_b16", 2048, 1.6, 1e-6)):
        made = recipe(name)
        body = made.optimiser.groups["all"]
        assert (body.kind, made.batch, made.epochs, body.weight_decay) == ("lars", batch, 1000, decay)
        assert body.lr == pytest.approx(rate) and (body.betas[0], body.eta) == (0.9, 1e-3)
    vectors = recipe("barlow_twins_b16").optimiser.groups["vectors"]
    assert vectors.lr == pytest.approx(0.0048 * 8) and vectors.match == ("*.bias", "*norm*.weight")


def test_heads_are_as_wide_as_published() -> None:
    heads = {row: METHODS[row].projectors["head"] for row in ("moco_v2", "moco_v3", "byol", "barlow_twins")}
    assert {row: (one.hidden, one.depth, one.out) for row, one in heads.items()} == {
        "moco_v2": (2048, 2, 128),
        "moco_v3": (4096, 3, 256),
        "byol": (4096, 2, 256),
        "barlow_twins": (8192, 3, 8192),
    }
    predictor = METHODS["moco_v3"].terms["one"].predictor
    assert isinstance(predictor, MLP) and (predictor.hidden, predictor.end) == (4096, "batch")
    assert dataclasses.replace(predictor, end="plain") == METHODS["byol"].terms["one"].predictor


def test_codes_are_cosines() -> None:
    projector = Codes(hidden=6, depth=2, bottleneck=3, codes=4, of="both").build(5).double()
    tokens = tokens_of(draw(2, 4, 5, seed=0), draw(2, 5, seed=1))
    with torch.no_grad():
        found, before = projector(tokens), projector.mlp(tokens)
        for sample in range(2):
            for code in range(4):
                for row, mine in (
                    (before.pooled[sample], found.pooled[sample]),
                    (before.rows[sample, 3], found.rows[sample, 3]),
                ):
                    assert float(mine[code]) == pytest.approx(float(unit(row) @ unit(projector.last[code])), abs=1e-9)


def test_centred_equals_loops_and_its_centre_follows() -> None:
    likelihood = Centred(temperature=0.2, target_temperature=0.05, momentum=0.75).build(3).double()
    likelihood.centre.copy_(draw(3, seed=9))
    guess, rows = draw(4, 2, 3, seed=0).requires_grad_(), draw(4, 2, 3, seed=1)
    weight = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.5, 3.0], [1.0, 1.0]], dtype=torch.float64)
    before, fast = likelihood.centre.clone(), likelihood(guess, Target(rows, None, weight))
    slow = torch.zeros((), dtype=torch.float64)
    for sample in range(4):
        for row in range(2):
            chosen = [math.exp(float(rows[sample, row, k] - before[k]) / 0.05) for k in range(3)]
            logits = [guess[sample, row, k] / 0.2 for k in range(3)]
            total = torch.stack(logits).exp().sum().log()
            cost = sum(share / sum(chosen) * (total - logit) for share, logit in zip(chosen, logits, strict=True))
            slow = slow + weight[sample, row] * cost
    slow = slow / weight.sum()
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    (mine,), (theirs,) = torch.autograd.grad(fast, [guess]), torch.autograd.grad(slow, [guess])
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)
    likelihood.after_skip()
    likelihood.after_step()
    assert torch.equal(likelihood.centre, before)
    likelihood(guess, Target(rows, None, None))
    likelihood.after_step()
    torch.testing.assert_close(likelihood.centre, 0.75 * before + 0.25 * rows.flatten(0, 1).mean(dim=0))


STEM = ["encoders.student.backbone.patch_embed.proj.weight", "encoders.student.backbone.patch_embed.proj.bias"]


@pytest.mark.parametrize("row", SIAMESE_ROWS)
def test_two_steps_at_full_width(row: Callable[[], Recipe]) -> None:
    """MoCo v3's stem stays as it was drawn; everything else moves."""
    _, still = steps(row())
    assert still == STEM
