"""The training view: a random resized crop that remembers its box and flip, and colour changes.

The crop is the one of Szegedy et al., "Going deeper with convolutions" (arXiv:1409.4842, section 6), in
torchvision's form: ten attempts at a random area and aspect, then the largest centred crop of an allowed
aspect.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import AfterValidator, Field
from torch import Tensor

from onestage.roles import Plan, ViewMaker
from onestage.spec import spec
from onestage.views.augment import AugmentSpec, Erase, RandAugment, erase
from onestage.views.blend import Blend
from onestage.views.colour import Colour, Probability, recolour
from onestage.views.frames import Frames
from onestage.views.resize import Interpolation, Side, reach, resample, resample_box, resample_to

_ATTEMPTS = 10
MARGIN = 1.5
"""How many times larger than the view the decoded box stays: so the decoder's own filter hardly shows."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the least comes first and the greatest second; try ({pair[1]}, {pair[0]})")
    return pair


Share = Annotated[float, Field(gt=0, le=1)]
Aspect = Annotated[float, Field(gt=0)]


@final
@spec
class Crop(ViewMaker):
    """A random resized crop, flipped left to right with probability `flip`, then recoloured."""

    size: Side | None = None
    """Side of the view, in pixels; empty: that of the encoder which sees it, filled in before training."""
    scale: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = (0.2, 1.0)
    """Least and greatest share of the picture's area; (1, 1) keeps all of it if its aspect is allowed."""
    ratio: Annotated[tuple[Aspect, Aspect], AfterValidator(_ascending)] = (3 / 4, 4 / 3)
    """Least and greatest aspect (width / height) of the crop, drawn log-uniformly."""
    flip: Probability = 0.5
    interpolation: Interpolation = "bicubic"
    augment: AugmentSpec | None = None
    """RandAugment or 3-Augment, before the colours."""
    colour: Colour | None = None
    erase: Erase | None = None
    blend: Blend | None = None
    """Mixup or CutMix with the sample's partner; the label is blended alike."""
    frames: Frames | None = None
    """Frames of the sample's clip, all cut and recoloured alike; empty: its picture."""
    kind: Literal["crop"] = "crop"

    def __post_init__(self) -> None:
        if self.frames is not None and self.blend is not None:
            raise ValueError("blend is for pictures; leave out either blend or frames")

    @property
    def alters(self) -> frozenset[str]:
        """What the view may change: `crop`, `flip`, `colour`, `warp`, `blend`, `erase`."""
        may = {
            "crop": self.scale != (1.0, 1.0),
            "flip": self.flip > 0,
            "colour": self.augment is not None or (self.colour is not None and self.colour.changes),
            "warp": isinstance(self.augment, RandAugment),
            "blend": self.blend is not None,
            "erase": self.erase is not None and self.erase.probability > 0,
        }
        return frozenset(name for name, happens in may.items() if happens)

    def plan(self, rng: np.random.Generator, width: int, height: int) -> Plan:
        """Box, flip and colour for a picture of `width` x `height` pixels."""
        box = random_box(rng, width, height, self.scale, self.ratio)
        flip = rng.random() < self.flip
        colour = self.augment.draw(rng) if self.augment is not None else ()
        colour += self.colour.draw(rng) if self.colour is not None else ()
        gone = self.erase.draw(rng, self.size) if self.erase is not None and self.size is not None else None
        moment = 0.5 if self.frames is None else rng.random()
        return Plan(box=box, flip=flip, colour=colour, shrink=spare(box, self.size), erased=gone, moment=moment)

    def rows(self, plan: Plan) -> int:
        """Those down to the box's lower side and, where smaller pixels may be cut, as far as the filter reaches."""
        top, _, height, _ = plan.box
        if self.size is None or plan.shrink == 1:
            return top + height
        return (
            top + height + 2 * reach(float(height), self.size)
        )  # of pixels that may be half, a quarter, an eighth as many

    def cut(self, pixels: UInt8[np.ndarray, "h w 3"], plan: Plan, out: UInt8[np.ndarray, "3 size size"]) -> None:
        """The planned view of a decoded picture, written to `out`."""
        if plan.scale == 1 and not (plan.flip or plan.colour or plan.erased):
            resample_to(out, inside(pixels, plan), self.interpolation)
            return
        image = self.resized(pixels, plan).numpy()[:, :, :: -1 if plan.flip else 1]
        if plan.colour or plan.erased:
            made = torch.from_numpy(np.ascontiguousarray(image))
            image = erase(recolour(made, plan.colour), plan.erased).numpy()
        out[...] = image  # pixels lie channels last: numpy turns and flips them in one pass

    def resized(self, pixels: UInt8[np.ndarray, "h w 3"], plan: Plan) -> UInt8[Tensor, "3 size size"]:
        """The box at the view's size, before anything else is done to it."""
        assert self.size is not None, "a recipe fills in the sizes of its views before training"
        top, left, height, width = plan.box
        if plan.scale == 1:
            return resample(inside(pixels, plan), (self.size, self.size), self.interpolation)
        box = tuple(plan.scale * side for side in (left, top, left + width, top + height))
        return resample_box(pixels, box, self.size, self.interpolation)


def inside(pixels: UInt8[np.ndarray, "h w 3"], plan: Plan) -> UInt8[np.ndarray, "height width 3"]:
    """What lies in the box."""
    top, left, height, width = plan.box
    return pixels[top : top + height, left : left + width]


def spare(box: tuple[int, int, int, int], size: int | None) -> float:
    """How many times smaller a box may be decoded before a view of `size` pixels is made of it."""
    return 1.0 if size is None else max(min(box[2:]) / (size * MARGIN), 1.0)


def random_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, in pixels: its area uniform, its aspect log-uniform."""
    reach = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*reach))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return _central_box(width, height, ratio)


def _central_box(width: int, height: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest centred box whose aspect is allowed, at least one pixel each way."""
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w
