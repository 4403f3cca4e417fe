"""Handwritten digits on a photograph, described first and drawn after, so that every annotation is exact.

A scene has one main digit (its label) and one or two smaller ones, none touching another, no side longer than half
of the picture. Lengths are shares of the picture's side, so one scene can be drawn at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, final

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (255, 70, 60),
    "green": (70, 225, 90),
    "blue": (100, 150, 255),
    "yellow": (250, 225, 60),
    "pink": (255, 140, 215),
    "white": (250, 250, 250),
}
MAIN_SIDE = (0.42, 0.50)
SMALL_SIDE = (0.20, 0.26)
BRIGHTNESS = 0.40
"""Of the photographs, so that the digits stand out."""
FOCUS = 24
"""The photographs are seen out of focus, as through so many pixels a side, whatever the size: about as by a
Gaussian blur of 1/48 of the side."""
INK = 0.5
"""Opacity from which a pixel belongs to a digit's mask."""
TEST_EVERY = 5
"""Every fifth glyph belongs to the test split."""
PLACES = 100
"""Places tried for a digit before it is left out."""
ZOOM = (0.3, 1.0)
"""Side of the square cut from a photograph, as a share of its height."""
LEAST_SIZE = 24
"""Pixels a side from which the smallest digit still is four pixels wide."""
_PHOTOGRAPH = (160, 107)
_STEEPER = [min(max(round(1.4 * level - 25.5), 0), 255) for level in range(256)]


@final
@dataclass(frozen=True)
class Digit:
    """A digit: its value, which handwritten glyph, its colour, and its square in shares of the picture."""

    value: int
    glyph: int
    colour: str
    left: float
    top: float
    side: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)."""
        return self.left + self.side / 2, self.top + self.side / 2

    def square(self, size: int) -> tuple[int, int, int]:
        """(left, top, side) in pixels of a picture of `size`, wholly inside it."""
        side = int(self.side * size)
        return int(self.left * size), int(self.top * size), side


@final
@dataclass(frozen=True)
class Scene:
    """Digits, the main one first, and the square of the photograph behind them (shares of its height)."""

    digits: tuple[Digit, ...]
    photograph: int
    crop: tuple[float, float, float]
    """Left, top and side."""


@cache
def glyphs() -> tuple[tuple[Image.Image, ...], np.ndarray]:
    """scikit-learn's 1,797 handwritten digits as 8x8 pictures, and their values."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pictures = tuple(Image.fromarray((picture * (255 / 16)).astype(np.uint8)) for picture in digits.images)
    return pictures, digits.target


@cache
def pool(split: str) -> tuple[tuple[int, ...], ...]:
    """For each value, the glyphs of a split."""
    values = glyphs()[1]
    test = np.arange(len(values)) % TEST_EVERY == 0
    chosen = test if split == "test" else ~test
    return tuple(tuple(np.flatnonzero((values == value) & chosen).tolist()) for value in range(10))


@cache
def photographs() -> tuple[Image.Image, ...]:
    """scikit-learn's two photographs, dimmed, and small: a blurred crop shows no more."""
    from sklearn.datasets import load_sample_images

    dim = [round(level * BRIGHTNESS) for level in range(256)] * 3
    pictures = (Image.fromarray(picture) for picture in load_sample_images().images)
    return tuple(picture.resize(_PHOTOGRAPH, Image.Resampling.BOX).point(dim) for picture in pictures)


def draw_scene(rng: np.random.Generator, split: str) -> Scene:
    """A random scene with glyphs of a split: a main digit and one or two small ones."""
    wanted = 2 + int(rng.integers(2))
    digits: list[Digit] = []
    while len(digits) < 2:  # a main digit in the very middle may leave no place
        digits = []
        for position in range(wanted):
            side = float(rng.uniform(*(SMALL_SIDE if position else MAIN_SIDE)))
            place = _free_place(rng, side, digits)
            if place is not None:
                digits.append(_digit(rng, split, place, side))
    share = float(rng.uniform(*ZOOM))
    wide = _PHOTOGRAPH[0] / _PHOTOGRAPH[1]
    crop = (float(rng.uniform(0, wide - share)), float(rng.uniform(0, 1 - share)), share)
    return Scene(tuple(digits), int(rng.integers(len(photographs()))), crop)


def _digit(rng: np.random.Generator, split: str, place: tuple[float, float], side: float) -> Digit:
    value = int(rng.integers(10))
    choices = pool(split)[value]
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    return Digit(value, choices[rng.integers(len(choices))], colour, *place, side)


def _free_place(rng: np.random.Generator, side: float, digits: list[Digit]) -> tuple[float, float] | None:
    """(left, top) of a square that touches no digit, or None where none was found."""
    for _ in range(PLACES):
        left, top = (float(number) for number in rng.uniform(0, 1 - side, 2))
        if all(
            left + side <= other.left
            or other.left + other.side <= left
            or top + side <= other.top
            or other.top + other.side <= top
            for other in digits
        ):
            return left, top
    return None


def render(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The picture."""
    picture = _background(scene, size)
    for digit in scene.digits:
        left, top, side = digit.square(size)
        picture.paste(COLOURS[digit.colour], (left, top), _ink(digit, side))
    return np.array(picture)


def _background(scene: Scene, size: int) -> Image.Image:
    """The photograph behind the digits, dimmed and out of focus."""
    photograph = photographs()[scene.photograph]
    left, top, side = (number * photograph.height for number in scene.crop)
    box = (left, top, min(left + side, photograph.width), min(top + side, photograph.height))
    coarse = photograph.resize((FOCUS, FOCUS), Image.Resampling.BILINEAR, box=box)
    return coarse.resize((size, size), Image.Resampling.BICUBIC)


def _ink(digit: Digit, side: int) -> Image.Image:
    """Opacity of a glyph's ink, 8 bits, with steeper edges than its 8x8 pixels have by themselves."""
    return glyphs()[0][digit.glyph].resize((side, side), Image.Resampling.BICUBIC).point(_STEEPER)


def instance_masks(scene: Scene, size: int) -> Bool[np.ndarray, "k size size"]:
    """The ink of every digit, in the order of `digits`."""
    masks = np.zeros((len(scene.digits), size, size), dtype=bool)
    for mask, digit in zip(masks, scene.digits, strict=True):
        left, top, side = digit.square(size)
        mask[top : top + side, left : left + side] = np.asarray(_ink(digit, side)) > 255 * INK
    return masks


def semantic_mask(scene: Scene, size: int) -> UInt8[np.ndarray, "size size"]:
    """0 for the background, otherwise the digit's value plus one."""
    mask = np.zeros((size, size), dtype=np.uint8)
    for own, digit in zip(instance_masks(scene, size), scene.digits, strict=True):
        mask[own] = digit.value + 1
    return mask
