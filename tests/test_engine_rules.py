"""Rules of an optimiser that siamese methods ask for: clipping by tensor, and decay that follows the run."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from onestage.engine.groups import Group, Optimiser
from onestage.engine.optimiser import Optimisers
from onestage.engine.schedule import Cosine


def test_gradients_may_be_clipped_tensor_by_tensor() -> None:
    """Each tensor's own norm is brought to the limit, and one below it is left alone (DINO)."""
    named = [("long", nn.Parameter(torch.zeros(3))), ("short", nn.Parameter(torch.zeros(2)))]
    optimisers = Optimisers(named, Optimiser({"all": Group(lr=1.0, clip=1.0, clip_by="tensor")}, reference_batch=1), 1)
    named[0][1].grad, named[1][1].grad = torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.1, 0.2])
    whole = optimisers.clip()
    assert float(whole) == pytest.approx(math.sqrt(25 + 0.05))
    torch.testing.assert_close(named[0][1].grad, torch.tensor([0.6, 0.0, 0.8]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(named[1][1].grad, torch.tensor([0.1, 0.2]))


def test_weight_decay_may_follow_a_cosine_and_spares_what_does_not_decay() -> None:
    named = [("weight", nn.Parameter(torch.zeros(2, 2))), ("bias", nn.Parameter(torch.zeros(2)))]
    group = Group(lr=1.0, weight_decay=0.04, last_weight_decay=0.4)
    optimisers = Optimisers(named, Optimiser({"all": group}, reference_batch=1), 1)
    for step, share in ((0, 0.0), (50, 0.5), (100, 1.0)):
        optimisers.set_lr(Cosine(warmup=0.1), step, 100)
        decays = {group["params"][0].ndim: group["weight_decay"] for group in optimisers._optimisers[0].param_groups}
        assert decays == {2: pytest.approx(0.04 + 0.36 * (1 - math.cos(math.pi * share)) / 2), 1: 0.0}
    optimisers.set_lr(Cosine(warmup=0.1, over=1.25), 100, 100)
    decays = [group["weight_decay"] for group in optimisers._optimisers[0].param_groups]
    assert max(decays) == pytest.approx(0.04 + 0.36 * (1 - math.cos(math.pi * 0.8)) / 2)
