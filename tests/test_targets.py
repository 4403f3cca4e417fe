"""Targets: pixels against MAE's formula in loops, rows of encoders, tables, and which rows are wanted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

from onestage.layers.normalise import STATISTICS, Normalise, unit
from onestage.ops import place_of
from onestage.spec import UserError, from_plain, spec
from onestage.targets import Encoded, Pixels, Table, TargetSpec, wanted_cells
from onestage.types import POOLED, Geometry, Tokens, View, Wanted

CPU = torch.device("cpu")
GRID = (2, 3)


@spec
class Holder:
    target: TargetSpec


def view_of(pixels: Tensor) -> View:
    b, _, h, w = pixels.shape
    box = torch.tensor([0.0, 0.0, h, w]).expand(b, 4)
    return View(pixels, Geometry(box, torch.zeros(b, dtype=torch.bool)))


def wanted(cells: list[list[int]], grid: tuple[int, int] = GRID) -> Wanted:
    return Wanted(torch.tensor(cells), grid, None)


def full_tokens(cells: list[list[int]] | None = None, grid: tuple[int, int] = GRID) -> Tokens:
    """Two samples; row of cell c of sample i starts with 10 i + c, the pooled row with 100 + i."""
    cell = torch.tensor(cells) if cells else torch.arange(grid[0] * grid[1]).expand(2, -1)
    sample = torch.arange(2).unsqueeze(1)
    rows = torch.stack([10.0 * sample + cell, torch.ones(cell.shape), -2.0 * torch.ones(cell.shape)], dim=-1)
    pooled = torch.tensor([[100.0, 3, 4], [101.0, 5, 6]])
    return Tokens(rows, pooled, place_of(cell), grid, None)


@pytest.mark.parametrize("norm", ["patch", "none"])
@pytest.mark.parametrize("statistics", list(STATISTICS))
def test_pixels_equal_the_slow_formula(norm: str, statistics: str) -> None:
    pixels = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    cells = [[5, 0, 3], [1, 2, 4]]
    maker = Pixels("hidden", norm=norm, normalise=statistics).build(patch=2)
    target = maker(view_of(pixels), wanted(cells), torch.tensor([7, 8]))
    mean, std = STATISTICS[statistics]
    for i, row in enumerate(cells):
        for m, cell in enumerate(row):
            top, left = 2 * (cell // GRID[1]), 2 * (cell % GRID[1])
            values = [
                (float(pixels[i, c, top + y, left + x]) - mean[c]) / std[c]
                for y in range(2)
                for x in range(2)
                for c in range(3)
            ]
            if norm == "patch":
                centre = sum(values) / 12
                variance = sum((value - centre) ** 2 for value in values) / 11
                values = [(value - centre) / (variance + 1e-6) ** 0.5 for value in values]
            torch.testing.assert_close(target.rows[i, m], torch.tensor(values), rtol=1e-4, atol=1e-5)
    assert maker.width == 12 and target.weight is None
    assert torch.equal(target.identity, torch.tensor([7, 8]))


def test_patches_have_mean_0_and_unbiased_variance_1_and_constant_ones_are_finite() -> None:
    pixels = torch.rand(1, 3, 8, 16, generator=torch.Generator().manual_seed(1))
    pixels[..., 8:] = 0.5
    maker = Pixels("all", normalise="half").build(patch=8)
    rows = maker(view_of(pixels), wanted([[0, 1]], (1, 2)), None).rows
    assert float(rows[0, 0].mean()) == pytest.approx(0, abs=1e-6)
    assert float(rows[0, 0].var(unbiased=True)) == pytest.approx(1, abs=1e-4)
    assert float(rows[0, 0].var(unbiased=False)) < 1 - 1e-3
    assert torch.equal(rows[0, 1], torch.zeros(192))


def test_pixels_by_what_lies_around_them() -> None:
    """Swin V2's: the mean and unbiased variance of the 5 x 5 pixels around each, as far as they are in the picture."""
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    maker = Pixels("all", norm="local", window=5, normalise="none").build(patch=8)
    rows = maker(view_of(pixels), wanted([[0]], (1, 1)), None).rows.view(8, 8, 3)
    for y in range(8):
        for x in range(8):
            near = pixels[0, :, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].double().flatten(1)
            expected = (pixels[0, :, y, x].double() - near.mean(1)) / (near.var(1, unbiased=True) + 1e-6).sqrt()
            torch.testing.assert_close(rows[y, x].double(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="46 pixels have no middle"):
        from_plain(Holder, {"target": {"kind": "pixels", "rows": "all", "norm": "local", "window": 46}})


def test_bf16_pixels_become_fp32_targets() -> None:
    pixels = torch.rand(1, 3, 4, 6).bfloat16()
    assert Pixels("all").build(2)(view_of(pixels), wanted([[0]]), None).rows.dtype == torch.float32


def test_pixels_refuse_a_view_of_another_size_and_the_pooled_row() -> None:
    with pytest.raises(UserError, match=r"2 x 3 patches of 2 px needs a view of 4 x 6 px, got 8 x 6 px"):
        Pixels("all").build(2)(view_of(torch.zeros(1, 3, 8, 6)), wanted([[0]]), None)
    with pytest.raises(UserError, match=r"target.rows: .*'all', 'kept' or 'hidden'"):
        from_plain(Holder, {"target": {"kind": "pixels", "rows": "kept+cls"}})


def test_encoded_picks_the_wanted_rows_wherever_they_stand() -> None:
    tokens = full_tokens([[4, 1, 3], [0, 5, 2]])
    maker = Encoded("teacher", rows="kept+cls").build(width=3)
    target = maker(tokens, wanted([[POOLED, 1, 3, 4], [POOLED, 0, 2, 5]]), torch.tensor([1, 1]))
    assert target.rows[:, :, 0].tolist() == [[100, 1, 3, 4], [101, 10, 12, 15]]
    assert torch.equal(target.identity, torch.tensor([1, 1])) and maker.width == 3


def test_encoded_norms() -> None:
    cells = wanted([[0, 1], [2, POOLED]])
    plain = Encoded("t", rows="all").build(3)(full_tokens(), cells, None).rows
    layer = Encoded("t", rows="all", norm="layer").build(3)(full_tokens(), cells, None).rows
    length = Encoded("t", rows="all", norm="l2").build(3)(full_tokens(), cells, None).rows
    for i in range(2):
        for m in range(2):
            row = plain[i, m]
            centred = row - row.mean()
            torch.testing.assert_close(layer[i, m], centred / (row.var(unbiased=False) + 1e-5).sqrt())
            torch.testing.assert_close(length[i, m], row / row.square().sum().sqrt())


def test_encoded_passes_gradients_to_a_trained_encoder() -> None:
    tokens = full_tokens()
    rows = tokens.rows.clone().requires_grad_()
    target = Encoded("text", rows="all").build(3)(tokens._replace(rows=rows), wanted([[0], [5]]), None)
    target.rows.sum().backward()
    assert rows.grad[0, 0].tolist() == [1, 1, 1] and float(rows.grad.sum()) == 6


def test_encoded_refuses_another_grid_except_for_the_pooled_row() -> None:
    tokens = full_tokens(grid=(3, 3))
    with pytest.raises(UserError, match="3 x 3 cells, 2 x 3 are wanted"):
        Encoded("teacher", rows="all").build(3)(tokens, wanted([[0], [0]]), None)
    pooled = Encoded("teacher", rows="pooled").build(3)(tokens, wanted([[POOLED], [POOLED]]), None)
    assert torch.equal(pooled.rows[:, 0], tokens.pooled)


def test_table_shares_its_trained_rows_and_takes_labels_as_identity() -> None:
    torch.manual_seed(0)
    maker = Table().build(width=64, classes=50)
    label = torch.tensor([3, 1])
    target = maker(label, wanted([[POOLED], [POOLED]]), None)
    assert target.rows is maker.weight and target.rows.requires_grad
    assert torch.equal(target.identity, label)
    assert float(maker.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert Table().rows == "pooled"
    with pytest.raises(UserError, match="greater than or equal to 1"):
        from_plain(Holder, {"target": {"kind": "table", "classes": 0}})


HIDDEN = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 1, 0, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("rows", "hidden", "cells"),
    [
        ("pooled", HIDDEN, [[-1], [-1]]),
        ("all", HIDDEN, [[0, 1, 2, 3, 4, 5]] * 2),
        ("all+cls", HIDDEN, [[-1, 0, 1, 2, 3, 4, 5]] * 2),
        ("kept", HIDDEN, [[1, 3, 4], [0, 3, 5]]),
        ("kept+cls", HIDDEN, [[-1, 1, 3, 4], [-1, 0, 3, 5]]),
        ("hidden", HIDDEN, [[0, 2, 5], [1, 2, 4]]),
        ("kept", None, [[0, 1, 2, 3, 4, 5]] * 2),
        ("kept+cls", None, [[-1, 0, 1, 2, 3, 4, 5]] * 2),
    ],
)
def test_wanted_cells(rows: str, hidden: Tensor | None, cells: list[list[int]]) -> None:
    count = 0 if hidden is None else 3
    assert wanted_cells(rows, hidden, count, GRID, 2, CPU).tolist() == cells


def test_hidden_rows_of_an_input_that_hides_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="hides none"):
        wanted_cells("hidden", None, 0, GRID, 2, CPU)
    with pytest.raises(UserError, match="hides none"):
        wanted_cells("hidden", torch.zeros(2, 6, dtype=torch.bool), 0, GRID, 2, CPU)


def test_normalise_keeps_precision_and_saves_nothing() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    for name, (mean, std) in STATISTICS.items():
        module = Normalise(name)
        normal = module(pixels)
        for c in range(3):
            torch.testing.assert_close(normal[:, c], (pixels[:, c] - mean[c]) / std[c])
        assert module(pixels.bfloat16()).dtype == torch.bfloat16
        assert list(module.state_dict()) == []
    assert torch.equal(Normalise("none")(pixels), pixels)
    assert torch.equal(Normalise("half")(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (3, 3, 5, 7), (3, 3, 224, 224), (2, 3, 600, 400)])
def test_uint8_pixels_are_made_floats_and_normalised(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of batches smaller and larger than what is made at a time, all 256 values, against torchvision."""
    pixels = torch.arange(torch.Size(shape).numel()).mul(7).remainder(256).to(torch.uint8).view(shape)
    before = pixels.clone()
    for name, statistics in STATISTICS.items():
        made = Normalise(name)(pixels)
        assert made.dtype == torch.float32 and made.is_contiguous()
        torch.testing.assert_close(made, transforms.functional.normalize(pixels.double() / 255, *statistics).float())
    assert torch.equal(pixels, before)
    made = Normalise("clip")(pixels)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # then it is what a GPU does
    assert torch.equal(Normalise("clip")(pixels), made)


def test_normalised_pixels_are_kept_for_the_gradient() -> None:
    """What a convolution keeps of one batch is not written over by the next."""
    weight = torch.ones(1, 3, 4, 4, requires_grad=True)
    first, second = (torch.full((2, 3, 8, 8), value, dtype=torch.uint8) for value in (255, 0))
    made = functional.conv2d(Normalise("half")(first), weight).sum()
    for _ in range(20):
        Normalise("half")(second)
    made.backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.full_like(weight, 50.0))


def test_unit_rows_and_rows_too_short_for_a_direction() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0], [1e5, 0.0]], requires_grad=True)
    normal = unit(rows)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [1e-9, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(normal.detach(), expected)
    normal.sum().backward()
    assert torch.isfinite(rows.grad).all() and rows.grad.abs().max() <= 1
