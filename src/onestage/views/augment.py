"""Augmentations of supervised recipes: RandAugment, 3-Augment and random erasing.

RandAugment: arXiv:1909.13719, in the form DeiT uses (arXiv:2012.12877, table 9): every operation grows with the
magnitude, which is drawn anew each time (timm's rand-m9-mstd0.5-inc1). 3-Augment: DeiT III, arXiv:2204.07118, section
4. Random erasing: arXiv:1708.04896, algorithm 1. Parameters are drawn here; the pixels are torchvision's.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from onestage.roles import Erased
from onestage.spec import spec
from onestage.views.colour import SIGMA, THRESHOLD, Operations, Probability

RAND = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "saturation",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""The operations of RandAugment, each as likely as any other."""
_ATTEMPTS = 10
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@final
@spec
class RandAugment:
    """`count` operations one after another, each left out with probability 1 - `probability`."""

    count: Annotated[int, Field(ge=1)] = 2
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    spread: Annotated[float, Field(ge=0)] = 0.5
    """Deviation of the normal that the magnitude is drawn from; it stays in [0, 10]."""
    probability: Probability = 0.5
    kind: Literal["rand"] = "rand"

    def draw(self, rng: np.random.Generator) -> Operations:
        """The operations of one view."""
        found = []
        for _ in range(self.count):
            name, happens = RAND[rng.integers(len(RAND))], rng.random() < self.probability
            level = min(max(rng.normal(self.magnitude, self.spread), 0.0), 10.0) / 10
            sign = 1.0 if rng.random() < 0.5 else -1.0
            if happens:
                found.append((name, factor_of(name, level, sign)))
        return tuple(found)


@final
@spec
class ThreeAugment:
    """One of grey, solarising and blur, each as likely as the others."""

    kind: Literal["three"] = "three"

    def draw(self, rng: np.random.Generator) -> Operations:
        """The operation of one view."""
        sigma = rng.uniform(*SIGMA)
        return ((("grey", 1.0), ("solarize", THRESHOLD), ("blur", sigma))[rng.integers(3)],)


AugmentSpec = Annotated[RandAugment | ThreeAugment, Field(discriminator="kind")]


@final
@spec
class Erase:
    """A rectangle of the view replaced by noise, with probability `probability`."""

    probability: Probability = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    """Least and greatest share of the view."""
    aspect: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Height / width is drawn log-uniformly in [aspect, 1 / aspect]."""

    def draw(self, rng: np.random.Generator, size: int) -> Erased | None:
        """The rectangle of a view of `size` pixels; None: nothing is erased."""
        if rng.random() >= self.probability:
            return None
        for _ in range(_ATTEMPTS):
            area = size * size * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(math.log(self.aspect), -math.log(self.aspect)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height < size and 0 < width < size:
                top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
                return Erased((top, left, height, width), int(rng.integers(1 << 62)))
        return None


def factor_of(name: str, level: float, sign: float) -> float:
    """What an operation is done with at a level in [0, 1]: degrees, bits kept, threshold, amount, or a factor."""
    match name:
        case "rotate":
            return sign * 30.0 * level
        case "posterize":
            return float(4 - int(4 * level))
        case "solarize":
            return float(min(256 - min(256, int(256 * level)), 255))
        case "solarize_add":
            return float(int(110 * level))
        case "saturation" | "contrast" | "brightness" | "sharpness":
            return max(0.1, 1.0 + sign * 0.9 * level)
        case "shear_x" | "shear_y":
            return sign * 0.3 * level
        case "translate_x" | "translate_y":
            return sign * 0.45 * level
    return 1.0


def erase(image: UInt8[Tensor, "3 h w"], erased: Erased | None) -> UInt8[Tensor, "3 h w"]:
    """The image with normal noise in the rectangle: of ImageNet's mean and deviation, cut at black and white, since
    pixels are bytes here (timm draws it after normalising, where nothing is cut)."""
    if erased is None:
        return image
    top, left, height, width = erased.box
    noise = np.random.default_rng(erased.seed).standard_normal((height, width, 3))
    values = ((noise * _STD + _MEAN) * 255).round().clip(0, 255).astype(np.uint8)
    image = image.clone()
    image[:, top : top + height, left : left + width] = torch.from_numpy(values).permute(2, 0, 1)
    return image
