"""SigLIP's likelihood against a slow formula in float64 and open_clip's loss; its tower's attention pooling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from onestage.encoders import ClipText, Vit
from onestage.likelihood import Sigmoid
from onestage.spec import UserError
from onestage.types import Geometry, Piece, Target, View, Words
from test_likelihood_boltzmann import IDENTITY, WEIGHT, dot, draw, unit


def slow(wanted: Sigmoid, guess: Tensor, rows: Tensor, scale: Tensor, bias: Tensor, target: Target) -> Tensor:
    """Pair by pair."""
    b = len(guess)
    ids = list(range(b)) if target.identity is None else target.identity.tolist()
    weight = [1.0] * b if target.weight is None else target.weight[:, 0].tolist()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(b):
        for j in range(b):
            same = ids[i] == ids[j]
            if j != i and (weight[j] == 0 or (same and wanted.same_text == "ignore")):
                continue
            together = j == i or (same and wanted.same_text == "positive")
            logit = scale * dot(unit(guess[i]), unit(rows[j])) + bias
            total = total - weight[i] * torch.log(1 / (1 + torch.exp(-logit if together else logit)))
    return total / sum(weight)


@pytest.mark.parametrize("same_text", ["positive", "ignore", "negative"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("identity", [None, IDENTITY], ids=["distinct", "alike"])
def test_sigmoid_value_and_gradients_equal_the_slow_formula(same_text, weight, identity) -> None:
    wanted = Sigmoid(temperature=0.5, bias=-1.5, same_text=same_text)
    guess, rows = draw(6, 1, 4, seed=0), draw(6, 1, 4, seed=1)
    fast_in = [guess.clone().requires_grad_(), rows.clone().requires_grad_()]
    slow_in = [guess[:, 0].double().requires_grad_(), rows[:, 0].double().requires_grad_()]
    log_scale = torch.tensor(math.log(2.0), dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    likelihood = wanted.build()
    fast = likelihood(fast_in[0], Target(fast_in[1], identity, weight))
    truth = slow(wanted, *slow_in, log_scale.exp(), bias, Target(slow_in[1], identity, weight))
    fast.backward()
    truth.backward()
    assert float(fast.detach()) == pytest.approx(float(truth.detach()), rel=2e-6)
    for ours, theirs in zip(fast_in, slow_in, strict=True):
        torch.testing.assert_close(ours.grad[:, 0], theirs.grad.float(), rtol=1e-4, atol=1e-6)
    assert float(likelihood.log_scale.grad) == pytest.approx(float(log_scale.grad), rel=1e-4, abs=1e-6)
    assert float(likelihood.bias.grad) == pytest.approx(float(bias.grad), rel=1e-4, abs=1e-6)


def test_plain_siglip_equals_open_clip() -> None:
    from open_clip.loss import SigLipLoss

    guess, rows = draw(8, 1, 16, seed=4), draw(8, 1, 16, seed=5)
    likelihood = Sigmoid().build()
    theirs = SigLipLoss()(
        torch.nn.functional.normalize(guess[:, 0], dim=-1),
        torch.nn.functional.normalize(rows[:, 0], dim=-1),
        torch.tensor(10.0),
        torch.tensor(-10.0),
    )
    torch.testing.assert_close(likelihood(guess, Target(rows, torch.arange(8), None)).detach(), theirs)


def test_the_scale_stays_below_its_limit_and_the_bias_is_free() -> None:
    likelihood = Sigmoid().build()
    with torch.no_grad():
        likelihood.log_scale.fill_(9.0)
        likelihood.bias.fill_(-30.0)
    likelihood.after_step()
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(100.0)
    assert float(likelihood.bias.detach()) == -30.0


def test_several_rows_a_sample_are_refused_with_both_shapes() -> None:
    with pytest.raises(UserError, match=r"sigmoid.*\(2, 3, 4\)"):
        Sigmoid().build()(torch.zeros(2, 3, 4), Target(torch.zeros(2, 3, 4), None, None))


def test_attention_pooling_is_timms_and_of_one_row_is_that_row_alone() -> None:
    import timm

    torch.manual_seed(0)
    wanted = Vit(arch="vit_base_patch16_siglip_224", size=32, patch=8, width=32, depth=1, heads=2, pool="map")
    encoder = wanted.build(frozenset()).eval()
    theirs = timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=0, img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2
    ).eval()
    theirs.load_state_dict(encoder.backbone.state_dict())
    pixels = torch.rand(2, 3, 32, 32)
    geometry = Geometry(torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 2), torch.zeros(2, dtype=torch.bool))
    tokens = encoder({"image": Piece(view=View(pixels, geometry))})
    torch.testing.assert_close(tokens.pooled, theirs(encoder.normalise(pixels)))
    alike = tokens.rows[:, :1].expand_as(tokens.rows)
    torch.testing.assert_close(encoder.alone(alike)[:, 0], encoder.backbone.attn_pool(alike))


@pytest.mark.parametrize(
    ("attention", "pool", "sees"), [("earlier", "end", False), ("all", "end", True), ("earlier", "last", True)]
)
def test_what_a_text_tower_sees_behind_the_end_token(attention: Any, pool: Any, sees: bool) -> None:
    torch.manual_seed(0)
    tower = ClipText(width=16, depth=1, heads=2, joint=8, context=6, vocabulary=20, attention=attention, pool=pool)
    encoder = tower.build(frozenset()).eval()
    texts = torch.tensor([[1, 5, 19, 0, 0, 0], [1, 5, 19, 0, 3, 7]])
    rows = encoder({"text": Piece(None, Words(texts, torch.arange(2)))}).pooled
    assert torch.allclose(rows[0], rows[1], atol=1e-6) != sees
