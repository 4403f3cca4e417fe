"""SimMIM's units: whole squares, the published counts, and no square more likely than another."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.spec import UserError
from onestage.views import Units, coverage


@pytest.mark.parametrize(
    ("grid", "side", "hidden"), [((14, 14), 2, 120), ((12, 12), 2, 88), ((7, 7), 1, 30), ((6, 6), 1, 22)]
)
def test_as_many_cells_as_published(grid: tuple[int, int], side: int, hidden: int) -> None:
    """224 pixels: 30 of 49 units of 32; 192 pixels: 22 of 36; a ViT has 4 cells a unit, the end of a Swin one."""
    hide = Units(ratio=0.6, side=side)
    draws = [hide.draw(np.random.default_rng(seed), grid) for seed in range(20)]
    assert {int(draw.sum()) for draw in draws} == {hide.count(grid)} == {hidden}
    for draw in draws:
        blocks = draw.reshape(grid[0] // side, side, grid[1] // side, side).sum(axis=(1, 3))
        assert set(np.unique(blocks)) == {0, side**2}


def test_every_unit_is_as_likely() -> None:
    share = coverage(Units(ratio=0.6, side=2), (6, 6), 4000, 0)
    assert np.abs(share - 6 / 9).max() < 0.03


def test_one_unit_stays_to_see() -> None:
    assert Units(ratio=0.99, side=2).count((4, 4)) == 12


def test_units_that_do_not_fill_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match="units of 2 x 2 cells do not fill a grid of 7 x 7"):
        Units(side=2).count((7, 7))
