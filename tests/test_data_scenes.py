"""The built-in scenes: the same everywhere, and every annotation as exact as the description it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import onestage
from onestage.data import Digits, Scenes, open_source
from onestage.data.scene import COLOURS, WORDS, instance_masks, pool, render, semantic_mask
from onestage.spec import UserError

TRAIN, TEST = Scenes("train"), Scenes("test")
SOME = [TRAIN.scene(index) for index in range(300)]

FIRST_TRAIN = [
    "a yellow seven above a small white six",
    "a yellow five left of a small blue one",
    "a red zero below a small red six",
]
FIRST_TEST = "a green four below a small blue seven"

PATH = f"import sys; sys.path.insert(0, {str(Path(onestage.__file__).parents[1])!r})"
HASHES = """
import hashlib
from onestage.data import Scenes
source = Scenes("train")
for index in (7, 19_999, 3):
    sample = source[index]
    print(index, hashlib.sha256(sample.picture.decode().tobytes() + repr(sample.texts).encode()).hexdigest())
"""


def test_a_scene_is_the_same_in_another_process_and_in_any_order() -> None:
    done = subprocess.run([sys.executable, "-c", PATH + HASHES], capture_output=True, text=True, check=True)
    there = dict(line.split() for line in done.stdout.splitlines())
    for index in (3, 7, 19_999):
        sample = Scenes("train")[index]
        said = repr(sample.texts).encode()
        assert hashlib.sha256(sample.picture.decode().tobytes() + said).hexdigest() == there[str(index)]


def test_the_first_scenes_stay_what_they_are() -> None:
    """Whoever changes them has to raise `builtin.VERSION` too, or a run would resume on other pictures."""
    assert [TRAIN[index].texts[-1] for index in range(3)] == FIRST_TRAIN
    assert TEST[0].texts[-1] == FIRST_TEST
    assert TRAIN.fingerprint() == "scenes-4-train-20000-64-0"


def test_scenes_differ_by_index_split_and_seed() -> None:
    pictures = {TRAIN[index].picture.decode().tobytes() for index in range(50)}
    assert len(pictures) == 50
    assert TEST.scene(0) != TRAIN.scene(0)
    assert Scenes("train", seed=1).scene(0) != TRAIN.scene(0)


def test_glyphs_of_the_test_split_are_never_in_train() -> None:
    train = {glyph for own in pool("train") for glyph in own}
    test = {glyph for own in pool("test") for glyph in own}
    assert train & test == set()
    assert train | test == set(range(1797))
    assert test == set(range(0, 1797, 5))
    assert {digit.glyph for scene in SOME for digit in scene.digits} <= train
    assert {digit.glyph for index in range(300) for digit in TEST.scene(index).digits} <= test


def test_glyphs_show_their_value() -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    for scene in SOME:
        assert [int(target[digit.glyph]) for digit in scene.digits] == [digit.value for digit in scene.digits]


@pytest.mark.parametrize("size", [24, 48, 64, 97])
def test_digits_keep_apart_and_at_most_half(size: int) -> None:
    for scene in SOME:
        squares = [digit.square(size) for digit in scene.digits]
        assert 2 <= len(squares) <= 3
        assert all(4 <= side <= size / 2 for *_, side in squares)
        assert all(squares[0][2] > side for *_, side in squares[1:])
        covered = np.zeros((size, size), dtype=int)
        for left, top, side in squares:
            assert left >= 0 and top >= 0 and left + side <= size and top + side <= size
            covered[top : top + side, left : left + side] += 1
        assert covered.max() == 1


def test_sizes_of_digits_in_shares_of_the_picture() -> None:
    sides = [[digit.side for digit in scene.digits] for scene in SOME]
    assert all(0.42 <= main <= 0.5 for main, *_ in sides)
    assert all(0.2 <= side <= 0.26 for _, *small in sides for side in small)
    assert {len(row) for row in sides} == {2, 3}


def test_labels_boxes_and_masks_fit_the_description() -> None:
    source = Scenes("train", size=50)
    for index in range(100):
        scene, sample = source.scene(index), source[index]
        assert sample.label == sample.box_labels[0] == scene.digits[0].value
        masks, semantic = instance_masks(scene, 50), semantic_mask(scene, 50)
        assert masks.shape == (len(sample.boxes), 50, 50)
        assert sample.instances is not None and np.array_equal(sample.instances.decode(), masks)
        expected = np.zeros((50, 50), dtype=np.uint8)
        for mask, box, value in zip(masks, sample.boxes, sample.box_labels, strict=True):
            rows, columns = np.nonzero(mask)
            left, top, right, bottom = box
            assert len(rows) > 4
            assert left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom
            for row, column in zip(rows, columns, strict=True):
                assert expected[row, column] == 0
                expected[row, column] = value + 1
        assert np.array_equal(semantic, expected)


def test_ink_has_its_colour_and_the_background_is_dark() -> None:
    near, dark = [], []
    for scene in SOME[:100]:
        picture = render(scene, 64).astype(float)
        masks = instance_masks(scene, 64)
        for mask, digit in zip(masks, scene.digits, strict=True):
            ink = picture[mask].mean(0)
            distances = {name: np.abs(ink - np.array(rgb)).sum() for name, rgb in COLOURS.items()}
            near.append(min(distances, key=distances.__getitem__) == digit.colour)
        outside = np.ones((64, 64), dtype=bool)
        for left, top, side in (digit.square(64) for digit in scene.digits):
            outside[top : top + side, left : left + side] = False
        dark.append(picture[outside].max())
    assert np.mean(near) > 0.98
    assert max(dark) <= 0.4 * 255 + 10  # the resampling may overshoot a little


def test_the_background_is_a_dimmed_blurred_photograph() -> None:
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    blurred, sharp = [], []
    for scene in SOME[:40]:
        left, top, side = (number * 427 for number in scene.crop)
        box = (left, top, min(left + side, 640), min(top + side, 427))
        view = photographs[scene.photograph].resize((96, 96), Image.Resampling.BILINEAR, box=box)
        empty = render(dataclasses.replace(scene, digits=()), 96).astype(float)
        blurred.append(np.abs(empty - 0.4 * np.asarray(view.filter(ImageFilter.GaussianBlur(2)))).mean())
        sharp.append(np.abs(empty - 0.4 * np.asarray(view)).mean())
    assert np.mean(blurred) < 1.5 < 2.5 < np.mean(sharp)


def test_a_scene_looks_alike_at_every_size() -> None:
    for scene in SOME[:20]:
        large = render(scene, 192).astype(float).reshape(48, 4, 48, 4, 3).mean((1, 3))
        small = render(scene, 48).astype(float)
        assert np.abs(large - small).mean() < 12  # digits are placed to a whole pixel


def test_labels_colours_and_neighbours_are_uniform() -> None:
    scenes = [TRAIN.scene(index) for index in range(2000)]
    for counts in (
        np.bincount([scene.digits[0].value for scene in scenes], minlength=10),
        np.bincount([list(COLOURS).index(scene.digits[0].colour) for scene in scenes], minlength=6),
        np.bincount([len(scene.digits) - 2 for scene in scenes], minlength=2),
    ):
        mean = 2000 / len(counts)
        assert np.abs(counts - mean).max() < 4.5 * np.sqrt(mean)


def test_lengths_classes_and_promises() -> None:
    assert (len(TRAIN), len(TEST)) == (20_000, 2_000)
    assert TRAIN.classes == WORDS and TRAIN.has_texts and TRAIN.has_labels
    assert TRAIN.keeps_captions == frozenset()
    assert TRAIN[0].picture.size == (64, 64) and TRAIN[0].picture.decode().shape == (64, 64, 3)
    with pytest.raises(UserError, match="scenes of 16 pixels"):
        Scenes("train", size=16)


def test_digits_are_the_plain_labelled_set() -> None:
    train, test = Digits("train"), open_source("digits:test")
    assert (len(train), len(test)) == (1437, 360)
    assert {train[index].key for index in range(len(train))}.isdisjoint(test[index].key for index in range(360))
    for index in range(0, 360, 40):
        sample = test[index]
        assert sample.picture.decode().shape == (32, 32, 3) and sample.picture.decode().dtype == np.uint8
        assert sample.label is not None and sample.texts == (
            f"{'an' if sample.label == 8 else 'a'} {test.classes[sample.label]}",
        )
    assert train.fingerprint() != test.fingerprint()


def test_digits_show_scikit_learns_pictures() -> None:
    from sklearn.datasets import load_digits

    images = load_digits().images / 16
    source = Digits("test")
    for index in range(0, 360, 40):
        sample = source[index]
        seen = sample.picture.decode().astype(float).mean(-1).reshape(8, 4, 8, 4).mean((1, 3)) / 255
        assert np.corrcoef(seen.ravel(), images[int(sample.key)].ravel())[0, 1] > 0.97
