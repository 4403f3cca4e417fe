"""Weights brought to another patch and another grid, against cubic convolution in loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage import api, pretraining
from onestage.encoders.resample import kernel, positions, resample
from onestage.storage import load_checkpoint

LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}


def weight(distance: float) -> float:
    """Keys' cubic kernel with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def slowly(values: list[float], count: int) -> list[float]:
    """A row of values resampled: pixels are areas, and beyond the ends the last value goes on."""
    result = []
    for place in range(count):
        centre = (place + 0.5) * len(values) / count - 0.5
        near = range(math.floor(centre) - 1, math.floor(centre) + 3)
        result.append(sum(values[min(max(i, 0), len(values) - 1)] * weight(centre - i) for i in near))
    return result


def slowly_both(picture: Tensor, rows: int, columns: int) -> Tensor:
    wide = [slowly(row, columns) for row in picture.tolist()]
    tall = [slowly(list(column), rows) for column in zip(*wide, strict=True)]
    return torch.tensor(tall).T


@pytest.mark.parametrize(("before", "after"), [(14, 16), (16, 14), (14, 14)])
def test_kernels(before: int, after: int) -> None:
    given = torch.randn(2, 3, before, before)
    found = kernel(given, (after, after))
    for d in range(2):
        for c in range(3):
            torch.testing.assert_close(found[d, c], slowly_both(given[d, c], after, after), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("before", "grid"), [(4, (6, 6)), (6, (4, 4)), (3, (3, 5))])
@pytest.mark.parametrize("lead", [(), (1,)])
def test_positions(before: int, grid: tuple[int, int], lead: tuple[int, ...]) -> None:
    given = torch.randn(*lead, 1 + before**2, 5)
    found = positions(given, grid, 1)
    assert found is not None and found.shape == (*lead, 1 + grid[0] * grid[1], 5)
    assert found[..., 0, :].equal(given[..., 0, :])
    for d in range(5):
        expected = slowly_both(given[..., 1:, d].reshape(before, before), *grid)
        torch.testing.assert_close(found[..., 1:, d].reshape(grid), expected, atol=1e-5, rtol=1e-5)


def test_what_only_learning_can_give() -> None:
    wider = torch.Size((8, 3, 16, 16))
    assert resample("backbone.patch_embed.proj.weight", torch.zeros(4, 3, 14, 14), wider, (2, 2)) is None
    assert resample("backbone.pos_embed", torch.zeros(1, 5, 4), torch.Size((1, 10, 8)), (3, 3)) is None
    assert resample("backbone.pos_embed", torch.zeros(1, 6, 4), torch.Size((1, 10, 4)), (3, 3)) is None
    assert resample("backbone.norm.weight", torch.zeros(4), torch.Size((8,)), (2, 2)) is None


@pytest.mark.parametrize(("patch", "size"), [("8", "64"), ("12", "48")], ids=["larger", "coarser"])
def test_a_run_starts_from_another_size_or_patch(patch: str, size: str, tmp_path: Path) -> None:
    plain = LEAN | {"models.student.stem": "patch"}
    first = api.make_recipe("clip_tiny", data="scenes", steps=1, settings=plain)
    pretraining.start(first, tmp_path / "first", [], lambda line: None)
    settings = plain | {"models.student.patch": patch, "models.student.size": size}
    second = api.make_recipe("clip_tiny", data="scenes", steps=1, init=str(tmp_path / "first"), settings=settings)
    said: list[str] = []
    pretraining.start(second, tmp_path / "second", [], said.append)
    assert any("0 left as they were; resampled" in line and "pos_embed" in line for line in said), said
    given, begun = (load_checkpoint(tmp_path / run, "0" if run == "second" else "1") for run in ("first", "second"))
    for name in ("patch_embed.proj.weight", "pos_embed", "norm.weight", "blocks.0.mlp.fc1.weight"):
        key = f"encoders.student.backbone.{name}"
        own, other = given.tensors["model"][key], begun.tensors["model"][key]
        resampled = resample(key, own, other.shape, (int(size) // int(patch),) * 2)
        assert other.equal(own if own.shape == other.shape or resampled is None else resampled)
