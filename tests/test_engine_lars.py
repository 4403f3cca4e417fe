"""LARS against its rule in plain loops, and against timm's where the two agree."""

from __future__ import annotations

import math

import pytest
import torch
from timm.optim.lars import Lars as TimmLars
from torch import Tensor, nn

from onestage.engine.groups import Group, Optimiser
from onestage.engine.optimiser import Optimisers
from onestage.engine.schedule import Cosine

STEPS, LR, MOMENTUM, DECAY, ETA = 5, 0.5, 0.9, 0.3, 0.01
CONSTANT = Cosine(warmup=0.0, end=LR)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 4, dtype=torch.float64)


def gradients(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, generator=draw, dtype=torch.float64), torch.randn(4, generator=draw, dtype=torch.float64)


def fresh(made: nn.Linear, decay: float = DECAY) -> Optimisers:
    group = Group(kind="lars", lr=LR, betas=(MOMENTUM, 0.999), weight_decay=decay, eta=ETA)
    return Optimisers(made.named_parameters(), Optimiser(groups={"all": group}, reference_batch=8), batch=8)


def train(made: nn.Linear, optimisers: Optimisers, steps: range) -> None:
    for step in steps:
        made.weight.grad, made.bias.grad = gradients(step)
        optimisers.set_lr(CONSTANT, step, STEPS)
        optimisers.step()


def slow(x: list[float], grads: list[list[float]], decay: float, adapted: bool) -> list[float]:
    """One tensor, number by number."""
    v = [0.0] * len(x)
    for g in grads:
        u = [a + decay * b for a, b in zip(g, x, strict=True)]
        ours, theirs = (math.sqrt(sum(a * a for a in one)) for one in (x, u))
        trust = ETA * ours / theirs if adapted and ours > 0 and theirs > 0 else 1.0
        v = [MOMENTUM * a + trust * b for a, b in zip(v, u, strict=True)]
        x = [a - LR * b for a, b in zip(x, v, strict=True)]
    return x


@pytest.mark.parametrize("start", ["drawn", "zero"])
def test_steps_are_those_of_the_rule(start: str) -> None:
    """Weights are adapted, also from zero, where the ratio is 1; the bias neither decays nor is adapted."""
    made = layer()
    if start == "zero":
        nn.init.zeros_(made.weight)
    before = {name: parameter.detach().flatten().tolist() for name, parameter in made.named_parameters()}
    train(made, fresh(made), range(STEPS))
    for number, (name, decay) in enumerate((("weight", DECAY), ("bias", 0.0))):
        grads = [gradients(step)[number].flatten().tolist() for step in range(STEPS)]
        expected = slow(before[name], grads, decay, adapted=name == "weight")
        found = getattr(made, name).detach().flatten().tolist()
        assert found == pytest.approx(expected, rel=1e-9)


def test_timm_agrees_on_what_does_not_decay_once_it_is_told_to_adapt_it() -> None:
    """Without decay both divide by |g|; timm's adapts the bias too, which is left out here."""
    ours, theirs = layer(), layer()
    train(ours, fresh(ours, decay=0.0), range(STEPS))
    optimiser = TimmLars(
        [theirs.weight], lr=LR, momentum=MOMENTUM, weight_decay=0.0, trust_coeff=ETA, always_adapt=True
    )
    for step in range(STEPS):
        theirs.weight.grad = gradients(step)[0]
        optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-9)


def test_resumed_it_steps_as_if_it_had_not_stopped_and_remembers_its_velocity_alone() -> None:
    whole = layer()
    train(whole, fresh(whole), range(STEPS))
    first = layer()
    before = fresh(first)
    train(first, before, range(2))
    assert sorted(before.state()) == ["bias.exp_avg", "weight.exp_avg"]
    second = layer()
    second.load_state_dict(first.state_dict())
    after = fresh(second)
    after.load({name: tensor.clone() for name, tensor in before.state().items()})
    train(second, after, range(2, STEPS))
    assert torch.equal(second.weight, whole.weight) and torch.equal(second.bias, whole.bias)
