"""Histograms of gradients against MaskFeat's formula pixel by pixel, and what must leave them as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onestage.layers.normalise import STATISTICS
from onestage.spec import UserError
from onestage.targets import Hog
from onestage.types import Geometry, View, Wanted


def view_of(pixels: Tensor) -> View:
    b = pixels.shape[0]
    return View(pixels, Geometry(torch.zeros(b, 4), torch.zeros(b, dtype=torch.bool)))


def hog(pixels: Tensor, patch: int, cell: int, statistics: str = "imagenet") -> Tensor:
    grid = (pixels.shape[2] // patch, pixels.shape[3] // patch)
    cells = torch.arange(grid[0] * grid[1]).expand(pixels.shape[0], -1)
    return (
        Hog(rows="all", cell=cell, normalise=statistics)
        .build(patch)(view_of(pixels), Wanted(cells, grid, None), None)
        .rows
    )


def slow(image: np.ndarray, patch: int, cell: int) -> np.ndarray:
    """(3, h, w) in float64 to rows of (channel, bin, cell row, cell column), every vote by itself."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    votes = np.zeros((3, 9, height // cell, width // cell))
    for c in range(3):
        for y in range(height):
            for x in range(width):
                near = padded[c, y : y + 3, x : x + 3]
                gx = near[0, 0] - near[0, 2] + 2 * (near[1, 0] - near[1, 2]) + near[2, 0] - near[2, 2]
                gy = near[0, 0] - near[2, 0] + 2 * (near[0, 1] - near[2, 1]) + near[0, 2] - near[2, 2]
                direction = math.floor(math.atan2(gx, gy) / math.pi * 9) % 9
                votes[c, direction, y // cell, x // cell] += math.sqrt(gx * gx + gy * gy)
    side, rows = patch // cell, []
    for top in range(0, height // cell, side):
        for left in range(0, width // cell, side):
            part = votes[:, :, top : top + side, left : left + side]
            length = np.sqrt((part**2).sum(axis=1, keepdims=True))
            rows.append((part / np.maximum(length, 1e-12)).ravel())
    return np.stack(rows)


@pytest.mark.parametrize(("patch", "cell"), [(16, 8), (8, 8), (8, 4)])
def test_histograms_equal_the_slow_formula(patch: int, cell: int) -> None:
    pixels = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    rows = hog(pixels, patch, cell)
    mean, std = (np.array(value).reshape(3, 1, 1) for value in STATISTICS["imagenet"])
    for sample in range(2):
        expected = slow((pixels[sample].double().numpy() - mean) / std, patch, cell)
        np.testing.assert_allclose(rows[sample].numpy(), expected, rtol=0, atol=2e-5)


def test_a_patch_of_16_has_108_values_whose_mean_square_is_a_ninth() -> None:
    rows = hog(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 16, 8)
    assert rows.shape == (2, 4, 108)
    assert rows.square().mean().item() == pytest.approx(1 / 9, abs=1e-6)


def test_contrast_and_brightness_do_not_matter() -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(hog(0.5 * pixels + 0.2, 16, 8), hog(pixels, 16, 8), rtol=0, atol=2e-4)


def test_a_mirrored_picture_has_mirrored_directions_inside() -> None:
    """Bin b becomes 8 - b; the outermost columns differ, since the reflected border has no slope across."""
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    rows, mirrored = (hog(p, 8, 8)[0].reshape(4, 4, 3, 9) for p in (pixels, pixels.flip(3)))
    torch.testing.assert_close(mirrored.flip(1)[:, 1:3], rows.flip(3)[:, 1:3], rtol=0, atol=2e-5)


def test_a_plain_picture_has_no_directions() -> None:
    assert not hog(torch.full((1, 3, 16, 16), 0.3), 16, 8, "none").isnan().any()


def test_under_autocast_nothing_is_lost() -> None:
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hog(pixels, 16, 8), hog(pixels, 16, 8).float())
        inside = hog(pixels, 16, 8)
    assert torch.equal(inside, hog(pixels, 16, 8))


def test_cells_must_fill_a_patch_and_patches_the_view() -> None:
    with pytest.raises(UserError, match="cells of 8 pixels do not fill patches of 12"):
        Hog(rows="all").build(12)
    with pytest.raises(UserError, match="needs a view of 32 x 32 px, got 16 x 16"):
        Hog(rows="all").build(16)(view_of(torch.rand(1, 3, 16, 16)), Wanted(torch.zeros(1, 1), (2, 2), None), None)
