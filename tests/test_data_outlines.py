"""Outlines as masks: against loops, against pycocotools on real annotations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onestage.data.outlines import Outlines, inside, read_runs
from onestage.sample import BadSample

# pycocotools 2.0.11 passes NumPy 2 an array in its old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def slow(counts: list[int], height: int, width: int) -> np.ndarray:
    """Run lengths as a mask, pixel by pixel."""
    mask, place, value = np.zeros((height, width), dtype=bool), 0, False
    for count in counts:
        for _ in range(count):
            mask[place % height, place // height] = value
            place += 1
        value = not value
    return mask


def letters(counts: list[int]) -> str:
    """Run lengths as their string."""
    found = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            found += chr(48 + digit + 32 * more)
    return found


def random_runs(seed: int) -> tuple[list[int], int, int]:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    turns = np.sort(rng.integers(0, height * width + 1, int(rng.integers(0, 12))))
    return np.diff(turns, prepend=0, append=height * width).tolist(), height, width


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_in_both_forms(seed: int) -> None:
    counts, height, width = random_runs(seed)
    assert read_runs(letters(counts)) == counts
    for told in (counts, letters(counts)):
        mask = inside({"size": [height, width], "counts": told}, height, width)
        assert np.array_equal(mask, slow(counts, height, width))


def test_a_rectangle_and_a_hole_that_is_none() -> None:
    square = [2, 1, 6, 1, 6, 5, 2, 5]
    mask = inside([square], 8, 10)
    expected = np.zeros((8, 10), dtype=bool)
    expected[1:5, 2:6] = True
    assert np.array_equal(mask, expected)
    both = inside([square, [0, 0, 3, 0, 3, 3, 0, 3]], 8, 10)
    expected[:3, :3] = True
    assert np.array_equal(both, expected), "polygons of one thing are joined, where they overlap too"


def reference(outline: Any, height: int, width: int) -> np.ndarray:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    runs = coco.frPyObjects(outline, height, width)
    return coco.decode(coco.merge(runs) if isinstance(outline, list) else runs).astype(bool)


@pytest.mark.parametrize("seed", range(5))
def test_polygons_of_any_shape_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        height, width = (int(side) for side in rng.integers(3, 60, 2))
        near = 3 * min(height, width)
        corners = np.clip(rng.uniform(-20, 80, (rng.integers(3, 9), 2)), -near, near).round(int(rng.integers(0, 3)))
        outline = [corners.ravel().tolist()]
        assert np.array_equal(inside(outline, height, width), reference(outline, height, width)), outline


def test_real_outlines_are_those_of_pycocotools(test_data: Path) -> None:
    told = json.loads((test_data / "coco" / "annotations" / "instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in told["images"]}
    crowds = [one for one in told["annotations"] if one["iscrowd"]]
    chosen = [*crowds, *told["annotations"][::5]]
    assert len(crowds) == 5 and len(chosen) > 100
    for one in chosen:
        height, width = sizes[one["image_id"]]
        expected = reference(one["segmentation"], height, width)
        assert np.array_equal(inside(one["segmentation"], height, width), expected), one["id"]


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ("text", "size 'text'"),
        ({"size": [4, 5], "counts": [20]}, r"size \[4, 5\], but the picture's is \[5, 4\]"),
        ({"size": [5, 4], "counts": [3, 4]}, "runs are 7 pixels, but the picture has 20"),
        ({"size": [5, 4], "counts": [30, -10]}, "expected whole numbers"),
        ({"size": [5, 4], "counts": [20.0]}, "expected whole numbers"),
        ({"size": [5, 4]}, "counts are None"),
        ({"size": [5, 4], "counts": "!"}, "'!', which does not belong there"),
        ({"size": [5, 4], "counts": "T"}, "end in the middle of a number"),
        ({"size": [5, 4], "counts": "oooooooooooooooooooo0"}, "'o', which does not belong there"),
        ([[0, 0, 1]], "expected numbers x, y"),
        ([[0, 0, 1, "a", 2, 2]], "expected numbers x, y"),
        ([[0, 0, 1, 10**400, 2, 2]], "expected numbers x, y"),
        ([7], "expected numbers x, y|corners"),
        ([[0, 0, 1, 1]], "2 corners"),
        ([[0, 0, 1, 1, 2, float("nan")]], "one that is no number"),
        ([[0, 0, 1, 1, 2, 1e12]], r"leads to 1e\+12, far out of the picture"),
    ],
)
def test_what_is_no_outline_is_a_bad_sample(outline: Any, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        Outlines([outline], (4, 5)).decode()


def test_masks_that_would_take_too_much_memory_are_refused() -> None:
    with pytest.raises(BadSample, match="300 masks of 4000 x 4000 pixels are too many"):
        Outlines([[]] * 300, (4000, 4000)).decode()
