"""Siamese likelihoods against lightly's losses: values, gradients, and what a step leaves behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onestage.likelihood import Boltzmann, Centred, CrossCorrelation, Gaussian, Prototypes
from onestage.objective.match import nearest
from onestage.ops import place_of
from onestage.types import Target, Tokens, Wanted

loss = pytest.importorskip("lightly.loss", reason="lightly is not installed")


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agree(ours: Tensor, theirs: Tensor, *leaves: Tensor) -> None:
    """The same value, and the same gradient for each leaf."""
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, retain_graph=True),
        torch.autograd.grad(theirs, leaves, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)
        assert mine.abs().max() > 0


def test_msn_is_lightlys() -> None:
    """Three anchors of each image, one target, Sinkhorn and the mean entropy over all anchors."""
    likelihood = Prototypes(count=7).build(5)
    anchors = [draw(6, 1, 5, seed=seed).requires_grad_() for seed in range(3)]
    target = Target(draw(6, 1, 5, seed=9), None, None)
    ours = sum(likelihood(anchor, target) for anchor in anchors) / 3 + likelihood.together(anchors)
    theirs = loss.MSNLoss()(torch.cat([one[:, 0] for one in anchors]), target.rows[:, 0], likelihood.prototypes)
    agree(ours, theirs, *anchors, likelihood.prototypes)


def test_dino_is_lightlys_and_so_is_its_centre() -> None:
    likelihood, lightly = Centred(target_temperature=0.07).build(8), loss.DINOLoss(output_dim=8, teacher_temp=0.07)
    for step in range(3):
        seen = [draw(4, 1, 8, seed=10 * step + view).requires_grad_() for view in range(4)]
        told = [draw(4, 1, 8, seed=10 * step + 7 + view, scale=2.0) + step for view in range(2)]
        pairs = [(s, t) for s in range(4) for t in range(2) if s != t]
        ours = sum(likelihood(seen[s], Target(told[t], None, None)) for s, t in pairs) / len(pairs)
        theirs = lightly([one[:, 0] for one in told], [one[:, 0] for one in seen])
        agree(ours, theirs, *seen)
        likelihood.after_step()
        torch.testing.assert_close(likelihood.centre, lightly.center[0, 0], rtol=1e-4, atol=1e-6)


def test_ibots_patches_are_lightlys_where_each_image_hides_as_many() -> None:
    likelihood, lightly = Centred(target_temperature=0.04).build(8), loss.IBOTPatchLoss(output_dim=8, teacher_temp=0.04)
    hidden = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool).view(3, 2, 2)
    for step in range(2):
        seen, told = draw(3, 2, 8, seed=step).requires_grad_(), draw(3, 2, 8, seed=5 + step) + step
        ours = likelihood(seen, Target(told, None, None))
        agree(ours, lightly(told.flatten(0, 1), seen.flatten(0, 1), hidden), seen)
        likelihood.after_step()
        torch.testing.assert_close(likelihood.centre, lightly.center.value.flatten(), rtol=1e-4, atol=1e-6)


def test_barlow_twins_is_lightlys() -> None:
    one, two = (draw(9, 1, 6, seed=seed).requires_grad_() for seed in range(2))
    ours = CrossCorrelation(off_diagonal=0.0051).build(6)(one, Target(two, None, None))
    agree(ours, loss.BarlowTwinsLoss(lambda_param=0.0051)(one[:, 0], two[:, 0]), one, two)


def test_byol_is_lightlys() -> None:
    guess, rows = draw(5, 1, 6, seed=0).requires_grad_(), draw(5, 1, 6, seed=1)
    ours = Gaussian(form="cosine").build(6)(guess, Target(rows, None, None))
    agree(ours, loss.NegativeCosineSimilarity()(guess[:, 0], rows[:, 0]), guess)


def test_moco_is_lightlys_and_so_is_its_queue() -> None:
    """Four steps of four targets through a queue of eight, which turns over. lightly's bank leaves out what does not
    fit behind its end, so its size is a multiple."""
    likelihood = Boltzmann(over="queue", temperature=0.2, size=8).build(6)
    lightly = loss.NTXentLoss(temperature=0.2, memory_bank_size=(8, 6))
    lightly.memory_bank.bank.copy_(likelihood.queue)
    for step in range(4):
        query, key = draw(4, 1, 6, seed=20 + step).requires_grad_(), draw(4, 1, 6, seed=30 + step)
        ours = likelihood(query, Target(key, None, None))
        agree(ours, lightly(query[:, 0], key[:, 0]), query)
        likelihood.after_step()


def test_densecl_matches_as_lightly_does() -> None:
    models = pytest.importorskip("lightly.models.utils")
    ours, theirs, values = draw(2, 6, 5, seed=0), draw(2, 6, 5, seed=1), draw(2, 6, 3, seed=2)
    cells = torch.arange(6).expand(2, -1)
    seen, other = (Tokens(rows, rows.mean(dim=1), place_of(cells), (2, 3), None) for rows in (ours, theirs))
    chosen = nearest(seen, other, Wanted(cells, (2, 3), None)).cell
    found = values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))
    torch.testing.assert_close(found, models.select_most_similar(ours, theirs, values))
    assert chosen[0].tolist() != cells[0].tolist() and math.prod(chosen.shape) == 12
