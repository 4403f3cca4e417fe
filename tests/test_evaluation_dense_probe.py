"""Linear segmentation: metrics and geometry against slow loops, features that hold the answer or nothing, mistakes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor, nn

from onestage import api
from onestage.cli import command
from onestage.data import open_source
from onestage.data.decode import Pixels
from onestage.evaluation import DenseProbe
from onestage.evaluation.dense_probe import Cells, between, judged, pixels
from onestage.evaluation.heads import Heads, Standard, moments
from onestage.evaluation.segments import confusion, constant, per_class, scores
from onestage.ops import place_of
from onestage.roles import VOID, Mask, Sample, Source, Space, Teacher
from onestage.spec import UserError
from onestage.types import Tokens
from typed import Capture

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
SIDE, CELL = 32, 8


@final
class Given(Mask):
    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def decode(self) -> np.ndarray:
        return self.numbers


@final
class Stripes(Source):
    """Stripes a cell wide in the colour of their class; `change` makes something else of a sample's mask."""

    def __init__(
        self, count: int, seed: int, change: Callable[[int, np.ndarray], np.ndarray | None] | None = None
    ) -> None:
        self.name, self.count, self.seed, self.change = f"stripes-{seed}", count, seed, change
        self.has_masks, self.mask_classes = True, ("none", "red", "green", "blue")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        stripes = np.random.default_rng((self.seed, index)).choice(4, SIDE // CELL, p=[0.4, 0.3, 0.2, 0.1])
        numbers = np.tile(stripes.astype(np.uint8).repeat(CELL), (SIDE, 1))
        mask = numbers if self.change is None else self.change(index, numbers)
        return Sample(key=str(index), picture=Pixels(COLOURS[numbers]), mask=None if mask is None else Given(mask))

    def fingerprint(self) -> str:
        return self.name


@final
class Seeing(Teacher):
    """A cell's tokens are its mean colour, or nothing at all."""

    def __init__(self, what: str) -> None:
        self.reference, self.what = what, what
        self.grid, self.size, self.licence, self.scale = (SIDE // CELL, SIDE // CELL), SIDE, "none", 1.0
        self.has_text, self.has_joint, self.templates, self.statistics = False, False, (), "none"

    def parts(self) -> tuple[nn.Module, ...]:
        return ()

    def width(self, space: Space) -> int:
        return 3

    def tokens(self, pixels: Tensor, space: Space) -> Tokens:
        assert space == "raw" and pixels.shape[-2:] == (SIDE, SIDE)
        rows = nn.functional.avg_pool2d(pixels, CELL).flatten(2).transpose(1, 2)
        rows = rows if self.what == "colours" else torch.full_like(rows, 0.3)
        cells = torch.arange(rows.shape[1]).expand(len(rows), -1)
        return Tokens(rows, rows.mean(dim=1), place_of(cells), self.grid, None)

    def text(self, texts: Sequence[str]) -> Tensor:
        raise AssertionError("no texts here")


def draws(seed: int, *shape: int, classes: int = 6) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_metrics_are_those_of_a_loop_over_pixels_and_of_scikit_learn() -> None:
    truth, guess = draws(0, 3, 7, 5), draws(1, 3, 7, 5, classes=7)
    truth[truth == 2] = 4  # class 2 occurs in guesses alone, 6 too; 5 in data alone
    guess[guess == 5] = 1
    truth[0, :3] = VOID
    matrix = confusion(truth[:2], guess[:2]) + confusion(truth[2:], guess[2:])
    seen = [(t, g) for t, g in zip(truth.flatten().tolist(), guess.flatten().tolist(), strict=True) if t != VOID]
    ious, recalls = {}, []
    for number in range(8):
        both = sum(t == number == g for t, g in seen)
        either = sum(number in {t, g} for t, g in seen)
        inside = sum(t == number for t, _ in seen)
        if either:
            ious[number] = both / either
        if inside:
            recalls.append(both / inside)
    got = scores(matrix)
    assert sorted(ious) == [0, 1, 2, 3, 4, 5, 6] and len(recalls) == 5
    assert got["miou"] == pytest.approx(np.mean(list(ious.values())))
    assert got["miou"] == pytest.approx(jaccard_score(*zip(*seen, strict=True), average="macro"))
    assert got["pixel_accuracy"] == pytest.approx(np.mean([t == g for t, g in seen]))
    assert got["mean_class_accuracy"] == pytest.approx(np.mean(recalls))
    named = per_class(matrix, ("sky", "road", "car"))
    assert list(named) == ["iou_sky", "iou_road", "iou_car", "iou_3", "iou_4", "iou_5", "iou_6"]
    assert list(named.values()) == pytest.approx([ious[number] for number in range(7)])
    share = np.mean([t == 4 for t, _ in seen])
    assert scores(constant(matrix, 4))["miou"] == pytest.approx(share / 5)


@pytest.mark.parametrize(("grid", "side"), [((4, 4), 32), ((3, 5), 17), ((6, 2), 6), ((1, 1), 4)])
def test_features_between_cells_are_those_of_bilinear_upsampling(grid: tuple[int, int], side: int) -> None:
    rows = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(rows.permute(0, 3, 1, 2), (side, side), mode="bilinear", align_corners=False)
    image, y, x = (part.flatten() for part in torch.meshgrid(torch.arange(2), *[torch.arange(side)] * 2, indexing="ij"))
    torch.testing.assert_close(between(rows, image, y, x, side), fine[image, :, y, x], atol=1e-5, rtol=1e-5)


def test_a_head_is_judged_as_a_slow_loop_would(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    grid, side, classes = (2, 3), 7, 4
    rows, masks = torch.randn(5, *grid, 3, generator=draw), draws(1, 5, side, side, classes=classes)
    masks[1, 2:4] = VOID
    head = Heads(torch.randn(3, classes, generator=draw), torch.randn(1, classes, generator=draw))
    standard = Standard(torch.randn(3, generator=draw), torch.rand(3, generator=draw) + 0.5)
    expected = torch.zeros(VOID + 1, VOID + 1, dtype=torch.int64)
    for image in range(5):
        for y in range(side):
            for x in range(side):
                if masks[image, y, x] == VOID:
                    continue
                total = [0.0] * classes
                spots = [max((at + 0.5) * n / side - 0.5, 0) for at, n in ((y, grid[0]), (x, grid[1]))]
                for row in range(grid[0]):
                    for column in range(grid[1]):
                        near = max(0.0, 1 - abs(min(spots[0], grid[0] - 1) - row))
                        near *= max(0.0, 1 - abs(min(spots[1], grid[1] - 1) - column))
                        cell = ((rows[image, row, column] - standard.mean) / standard.deviation).double()
                        for number in range(classes):
                            score = float(cell @ head.weight[:, number].double()) + float(head.bias[0, number])
                            total[number] += near * score
                expected[int(masks[image, y, x]), max(range(classes), key=total.__getitem__)] += 1
    assert torch.equal(judged(head, standard, Cells(rows, masks)), expected)
    monkeypatch.setattr("onestage.evaluation.dense_probe.ELEMENTS", 2 * classes * side**2)
    assert torch.equal(judged(head, standard, Cells(rows, masks)), expected)


def test_pixels_come_from_everywhere_but_the_void_and_the_held_out() -> None:
    masks = draws(0, 4, 6, 6)
    masks[2, :, 3:] = VOID
    known = Cells(torch.arange(4 * 4.0).reshape(4, 2, 2, 1), masks)
    standard = Standard(torch.zeros(1), torch.ones(1))
    stream = pixels(known, torch.tensor([0, 2]), standard, 500, torch.Generator().manual_seed(0), torch.device("cpu"))
    seen = [next(stream) for _ in range(4)]
    rows, labels = (torch.cat(part) for part in zip(*seen, strict=True))
    assert 1400 < len(rows) < 1600  # three quarters
    assert set(rows.flatten().tolist()).isdisjoint({*range(4, 8), *range(12, 16)}) and rows.max() < 11
    for value in (0.0, 8.0):  # the corners of both images, and the share of each class there
        corner = masks[int(value) // 4, :2, :2].flatten().tolist()
        drawn = labels[(rows[:, 0] - value).abs() < 1e-6].tolist()
        assert set(drawn) == set(corner[:1]) | set(drawn) & set(corner)
    assert VOID not in labels


def test_features_that_hold_the_answer_find_it_and_constant_ones_find_chance() -> None:
    train, test = Stripes(40, 0), Stripes(20, 1)
    got = DenseProbe(steps=200).run(Seeing("colours"), test, train)
    assert got["miou"] > 0.97 and got["pixel_accuracy"] > 0.98 and got["held_out_miou"] > 0.97
    assert min(got[f"iou_{name}"] for name in test.mask_classes) > 0.95
    assert (got["train"], got["samples"], got["skipped"]) == (36, 20, 0)
    assert got == DenseProbe(steps=200).run(Seeing("colours"), test, train)
    nothing = DenseProbe(steps=60).run(Seeing("nothing"), test, train)
    masks = np.stack([test[n].mask.decode() for n in range(20)])  # pyright: ignore[reportOptionalMemberAccess]
    assert nothing["chance"] == pytest.approx((masks == 0).mean() / 4)
    assert nothing["miou"] == nothing["chance"] == got["chance"]
    assert nothing["mean_class_accuracy"] == 0.25


def test_a_rate_that_diverges_is_not_chosen_and_its_score_is_nothing() -> None:
    got = DenseProbe(steps=40, rates=(1e38, 0.3)).run(Seeing("colours"), Stripes(5, 1), Stripes(20, 0))
    assert got["rate"] == 0.3 and got["held_out_miou_lr1e+38"] == 0.0 and got["miou"] > 0.8


def test_void_counts_for_nothing_and_what_cannot_be_used_is_counted() -> None:
    """A quarter of each mask is void, and the truth under it is wrong on purpose; some samples are no use at all."""

    def change(index: int, numbers: np.ndarray) -> np.ndarray | None:
        spoilt = numbers.copy()
        spoilt[: CELL * 2, : CELL * 2] = VOID
        if index % 10 == 3:
            return None
        if index % 10 == 4:
            return np.full_like(numbers, VOID)
        return numbers[:5] if index % 10 == 5 else spoilt

    got = DenseProbe(steps=200).run(Seeing("colours"), Stripes(20, 1, change), Stripes(40, 0, change))
    assert (got["train"], got["samples"], got["skipped"]) == (25, 14, 18)
    assert got["miou"] > 0.95
    with pytest.raises(UserError, match=r"no usable image with a mask \(3 cannot be used; first: it has no mask\)"):
        DenseProbe(steps=5).run(Seeing("colours"), Stripes(3, 1, lambda *_: None), Stripes(9, 0))
    with pytest.raises(
        UserError, match=r"1 usable images with masks, but two are needed \(1 .* 32 x 5, but .* 32 x 32"
    ):
        DenseProbe(steps=5).run(Seeing("colours"), Stripes(3, 1), Stripes(2, 0, lambda n, m: m[:5] if n else m))


def test_what_does_not_fit() -> None:
    train, test, probe = Stripes(9, 0), Stripes(4, 1), DenseProbe(steps=5)
    with pytest.raises(UserError, match="needs training data with masks; give it with --train"):
        probe.run(Seeing("colours"), test, None)
    with pytest.raises(UserError, match="are the same"):
        probe.run(Seeing("colours"), test, test)
    with pytest.raises(UserError, match="digits:train has no masks; use scenes, or masks:IMAGES,MASKS"):
        probe.run(Seeing("colours"), test, open_source("digits"))
    train.mask_classes = ("none", "green", "red", "blue")
    with pytest.raises(UserError, match="stripes-0 has the classes none, green, red, blue"):
        probe.run(Seeing("colours"), test, train)
    train.mask_classes = ()
    with pytest.raises(UserError, match=r"stripes-0 has the classes \(none named\), but stripes-1 has none, red"):
        probe.run(Seeing("colours"), test, train)
    small = dataclasses.replace(probe, memory=1e-5)
    with pytest.raises(UserError, match=r"20 images .* take 0\.0 GiB, more than 1e-05; use .* --limit 8"):
        small.run(Seeing("colours"), test, Stripes(20, 2))


def test_the_command(place: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "dense.json"
    words = ["evaluate", "dense-probe", f"{place}/run", "--data", "scenes:test", "--limit", "12"]
    assert command([*words, "--train", "scenes", "--json", str(file)]) == 0
    answer = json.loads(file.read_text())
    assert answer["samples"] == 12 and answer["metrics"]["train"] == 11
    assert {"miou", "chance", "iou_background"} <= set(answer["metrics"]) and "miou" in capsys.readouterr().out
    assert command(words) == 2
    assert "digits:train has no masks" in capsys.readouterr().err
    with pytest.raises(UserError, match="--pool mean"):
        api.evaluate("dense-probe", f"{place}/run", data="scenes:test", train="scenes", pool="mean")


def test_moments_of_all_cells() -> None:
    rows = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    flat = moments(rows.flatten(0, 2))(rows)
    assert flat.mean(dim=(0, 1, 2)).abs().max() < 1e-5
    assert (flat.square().mean(dim=(0, 1, 2)) - 1).abs().max() < 1e-4
