"""The decoder that is told both geometries, against brute-force geometry on a picture of coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from onestage.ops import place_of, relative_cells
from onestage.predictors import Relative
from onestage.spec import UserError
from onestage.types import Geometry, Tokens, Wanted

GRID, SIDE = (4, 4), 64


def crop(values: np.ndarray, box: tuple[int, int, int, int], flip: bool, cells: int) -> np.ndarray:
    """The mean of the source's values in every cell of a view, by cutting, flipping and averaging pixels."""
    top, left, height, width = box
    view = values[top : top + height, left : left + width]
    if flip:
        view = view[:, ::-1]
    return view.reshape(cells, height // cells, cells, width // cells).mean(axis=(1, 3))


@pytest.mark.parametrize("seen_flip", [False, True])
@pytest.mark.parametrize("wanted_flip", [False, True])
def test_positions_are_those_of_brute_force_geometry(seen_flip: bool, wanted_flip: bool) -> None:
    """Every pixel of the source carries its own coordinates; a target cell's mean coordinates are looked up in the
    coordinates of the seen view's cells, which are linear in the cell number."""
    seen, wanted = (8, 4, 40, 48), (16, 20, 32, 24)
    y, x = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5, indexing="ij")
    seen_y, seen_x = (crop(axis, seen, seen_flip, 4) for axis in (y, x))
    wanted_y, wanted_x = (crop(axis, wanted, wanted_flip, 4) for axis in (y, x))
    row = (wanted_y - seen_y[0, 0]) / (seen_y[1, 0] - seen_y[0, 0])
    column = (wanted_x - seen_x[0, 0]) / (seen_x[0, 1] - seen_x[0, 0])
    found = relative_cells(
        Geometry(torch.tensor([seen]).float(), torch.tensor([seen_flip])),
        Geometry(torch.tensor([wanted]).float(), torch.tensor([wanted_flip])),
        torch.arange(16).unsqueeze(0),
        GRID,
        GRID,
    )[0]
    np.testing.assert_allclose(found[:, 0].numpy(), row.ravel(), atol=1e-5)
    np.testing.assert_allclose(found[:, 1].numpy(), column.ravel(), atol=1e-5)


def test_equal_views_give_the_cells_themselves() -> None:
    geometry = Geometry(torch.tensor([[3.0, 5.0, 17.0, 29.0]]), torch.tensor([True]))
    found = relative_cells(geometry, geometry, torch.arange(16).unsqueeze(0), GRID, GRID)[0]
    torch.testing.assert_close(found, torch.stack([torch.arange(16) // 4, torch.arange(16) % 4], dim=1).float())


def tokens_of(rows: Tensor, cells: Tensor, geometry: Geometry | None) -> Tokens:
    return Tokens(rows, rows.mean(dim=1), place_of(cells), GRID, geometry)


def geometry_of(*box: float, flip: bool = False) -> Geometry:
    return Geometry(torch.tensor([box]), torch.tensor([flip]))


def test_what_it_answers_depends_on_the_geometry_and_not_on_the_order_of_rows() -> None:
    torch.manual_seed(0)
    decoder = Relative(width=32, depth=2, heads=2).build(16, 6, GRID)
    rows, cells = torch.randn(1, 5, 16), torch.tensor([[0, 3, 7, 9, 14]])
    here, there = geometry_of(0, 0, 32, 32), geometry_of(8, 8, 16, 16)
    wanted = Wanted(torch.arange(16).unsqueeze(0), GRID, there)
    guess = decoder(tokens_of(rows, cells, here), wanted)
    assert guess.shape == (1, 16, 6)
    order = torch.tensor([4, 2, 0, 1, 3])
    again = decoder(tokens_of(rows[:, order], cells[:, order], here), wanted)
    torch.testing.assert_close(guess, again, atol=1e-5, rtol=1e-4)
    flipped = decoder(tokens_of(rows, cells, here), wanted._replace(geometry=geometry_of(8, 8, 16, 16, flip=True)))
    mirror = torch.arange(16).view(4, 4).flip(1).flatten()
    torch.testing.assert_close(flipped, guess[:, mirror], atol=1e-5, rtol=1e-4)
    larger = decoder(tokens_of(rows, cells, here), wanted._replace(geometry=geometry_of(0, 0, 32, 32)))
    assert not torch.allclose(larger, guess, atol=1e-3)


def test_a_target_that_is_no_view_is_refused() -> None:
    decoder = Relative(width=16, depth=1, heads=2).build(16, 6, GRID)
    with pytest.raises(UserError, match="crops of two views"):
        decoder(tokens_of(torch.randn(1, 5, 16), torch.arange(5)[None], None), Wanted(torch.tensor([[2]]), GRID, None))
    with pytest.raises(ValueError, match="multiple of 4"):
        Relative(width=30, heads=2)
