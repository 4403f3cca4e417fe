"""LAMB against its paper's algorithm in plain loops, and against timm's where the two agree."""

from __future__ import annotations

import math

import pytest
import torch
from timm.optim.lamb import Lamb as TimmLamb
from torch import Tensor, nn

from onestage.engine.adapted import Trust
from onestage.engine.groups import Group, Optimiser
from onestage.engine.optimiser import Optimisers
from onestage.engine.schedule import Cosine

STEPS, LR, BETAS, EPS, DECAY = 5, 0.05, (0.9, 0.98), 1e-6, 0.3
CONSTANT = Cosine(warmup=0.0, end=LR)


def layer(dtype: torch.dtype = torch.float64) -> nn.Linear:
    """A weight, and a bias of zeros, whose norm is 0 at first."""
    torch.manual_seed(0)
    made = nn.Linear(3, 4, dtype=dtype)
    nn.init.zeros_(made.bias)
    return made


def gradients(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    weight, bias = torch.randn(12, generator=generator).view(4, 3), torch.randn(4, generator=generator)
    return weight.double(), bias.double()


def ours(trust: Trust | None, decay_vectors: bool = False) -> nn.Linear:
    """The layer after some steps of ours."""
    made = layer()
    group = Group(
        kind="lamb",
        lr=LR,
        betas=BETAS,
        eps=EPS,
        weight_decay=DECAY,
        trust=trust,
        decay_vectors="always" if decay_vectors else "never",
    )
    optimisers = Optimisers(made.named_parameters(), Optimiser(groups={"all": group}, reference_batch=8), batch=8)
    for step in range(STEPS):
        made.weight.grad, made.bias.grad = gradients(step)
        optimisers.set_lr(CONSTANT, step, STEPS)
        optimisers.step()
    return made


def slow(start: list[float], grads: list[list[float]], decay: float, trust: Trust | None) -> list[float]:
    """Algorithm 2 of arXiv:1904.00962 for one tensor, number by number."""
    x, m, v = list(start), [0.0] * len(start), [0.0] * len(start)
    for t, g in enumerate(grads, start=1):
        u = []
        for i in range(len(x)):
            m[i] = BETAS[0] * m[i] + (1 - BETAS[0]) * g[i]
            v[i] = BETAS[1] * v[i] + (1 - BETAS[1]) * g[i] ** 2
            r = (m[i] / (1 - BETAS[0] ** t)) / (math.sqrt(v[i] / (1 - BETAS[1] ** t)) + EPS)
            u.append(r + decay * x[i])
        norm_x, norm_u = math.sqrt(sum(a * a for a in x)), math.sqrt(sum(a * a for a in u))
        ratio = 1.0
        if norm_x > 0 and norm_u > 0:
            ratio = norm_x / norm_u
            if trust is not None:
                ratio = min(max(ratio, trust.least), trust.greatest)
        x = [a - LR * ratio * b for a, b in zip(x, u, strict=True)]
    return x


@pytest.mark.parametrize("trust", [None, Trust(least=0.4), Trust(greatest=0.1)])
def test_steps_are_those_of_the_paper(trust: Trust | None) -> None:
    start, made = layer(), ours(trust)
    for number, (name, decay) in enumerate((("weight", DECAY), ("bias", 0.0))):
        grads = [gradients(step)[number].flatten().tolist() for step in range(STEPS)]
        expected = slow(getattr(start, name).flatten().tolist(), grads, decay, trust)
        # float32 step counts are the only numbers that are not in float64
        torch.testing.assert_close(
            getattr(made, name).flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7
        )


def test_timm_agrees_without_its_clipping_and_its_exemptions() -> None:
    theirs = layer()
    optimiser = TimmLamb(
        theirs.parameters(),
        lr=LR,
        betas=BETAS,
        eps=EPS,
        weight_decay=DECAY,
        max_grad_norm=None,
        always_adapt=True,
    )
    for step in range(STEPS):
        theirs.weight.grad, theirs.bias.grad = gradients(step)
        optimiser.step()
    made = ours(None, decay_vectors=True)
    torch.testing.assert_close(made.weight, theirs.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(made.bias, theirs.bias, rtol=1e-6, atol=1e-7)


def test_resumed_beside_adamw_it_steps_as_if_it_had_not_stopped() -> None:
    groups = {
        "weight": Group(kind="lamb", lr=LR, match=("weight",)),
        "rest": Group(lr=LR),
    }

    def fresh(made: nn.Linear) -> Optimisers:
        return Optimisers(made.named_parameters(), Optimiser(groups=groups, reference_batch=8), batch=8)

    def train(made: nn.Linear, optimisers: Optimisers, steps: range) -> None:
        for step in steps:
            made.weight.grad, made.bias.grad = gradients(step)
            optimisers.set_lr(CONSTANT, step, STEPS)
            optimisers.step()

    whole = layer()
    train(whole, fresh(whole), range(STEPS))
    first = layer()
    before = fresh(first)
    train(first, before, range(2))
    second = layer()
    second.load_state_dict(first.state_dict())
    after = fresh(second)
    after.load({name: tensor.clone() for name, tensor in before.state().items()})
    train(second, after, range(2, STEPS))
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"least 2.0 is above greatest 1.0"):
        Trust(least=2.0, greatest=1.0)
