"""Hiding what a teacher does not look at: against drawing one cell after another, and across batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from onestage.ops import place_of
from onestage.spec import UserError
from onestage.types import Tokens
from onestage.views import Attentive

GRID = (2, 3)
LOOKS = [0.3, 0.02, 0.1, 0.05, 0.25, 0.08]
"""Of a class token that looks at itself too: they need not add up to 1."""


def answer(batch: int, attention: torch.Tensor | None) -> Tokens:
    rows = torch.zeros(batch, 6, 4)
    return Tokens(rows, rows[:, 0], place_of(torch.arange(6).expand(batch, -1)), GRID, None, attention=attention)


def test_cells_stay_as_often_as_drawing_one_after_another_keeps_them() -> None:
    """Three of six cells drawn without replacement, each time in proportion to what is left."""
    expected = np.zeros(6)
    for order in itertools.permutations(range(6), 3):
        chance, left = 1.0, sum(LOOKS)
        for cell in order:
            chance *= LOOKS[cell] / left
            left -= LOOKS[cell]
        expected[list(order)] += chance
    draws, hide = 40_000, Attentive(ratio=0.5)
    noise = torch.from_numpy(np.random.default_rng(0).random((draws, 6), dtype=np.float32))
    hidden = hide.choose(noise, answer(draws, torch.tensor([LOOKS]).expand(draws, -1)), GRID)
    assert hide.count(GRID) == 3 and hidden.sum(dim=1).unique().tolist() == [3]
    np.testing.assert_allclose((~hidden).double().mean(dim=0).numpy(), expected, atol=0.01)


def test_a_draw_depends_on_its_sample_alone() -> None:
    hide, rng = Attentive(ratio=0.5), np.random.default_rng(1)
    noise = torch.from_numpy(np.stack([hide.noise(rng, GRID) for _ in range(4)]))
    looks = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    together = hide.choose(noise, answer(4, looks), GRID)
    for sample in range(4):
        alone = hide.choose(noise[sample : sample + 1], answer(1, looks[sample : sample + 1]), GRID)
        assert torch.equal(alone[0], together[sample])


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 49), (0.7, 58), (0.8, 39)])
def test_the_published_counts(ratio: float, kept: int) -> None:
    assert 196 - Attentive(ratio=ratio).count((14, 14)) == kept


def test_a_cell_that_is_not_looked_at_and_noise_at_its_ends_do_no_harm() -> None:
    looks = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    noise = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    hidden = Attentive(ratio=0.5).choose(noise, answer(1, looks), GRID)
    assert int(hidden.sum()) == 3 and not bool(hidden[0, 5])


def test_a_teacher_that_cannot_say_where_it_looks() -> None:
    noise = torch.rand(1, 6)
    with pytest.raises(UserError, match="'teacher' does not say where its class token looks"):
        Attentive().choose(noise, answer(1, None), GRID)
    with pytest.raises(UserError, match="looks at 2 x 3 cells, but the input has 3 x 3"):
        Attentive().choose(noise, answer(1, torch.rand(1, 6)), (3, 3))
