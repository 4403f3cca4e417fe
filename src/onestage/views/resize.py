"""The evaluation view, and the resampling that all views share."""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor

from onestage.roles import Plan, ViewMaker
from onestage.spec import spec
from onestage.views.frames import Frames

Interpolation = Literal["bicubic", "bilinear"]
Side = Annotated[int, Field(ge=1)]

_MARGIN = 4
"""Squares on each side of the centred one that are resized too: bounds the cost of a very long picture."""


def resample(
    pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, ...], interpolation: Interpolation | Literal["nearest-exact"]
) -> UInt8[Tensor, "c height width"]:
    """Pixels resized with antialiasing, to (height, width) or, from one number, by the shortest side.

    The result keeps the pixels' order in memory (channels last), which is the kernel's fast path;
    `torch.stack` makes a contiguous batch of it. It may share memory with `pixels` where they have the wanted
    size already.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional

    # torch warns of read-only arrays (Pillow's); and a crop would be copied inside the kernel anyway.
    owned = np.require(pixels, requirements=("C", "W"))
    image = torch.from_numpy(owned).permute(2, 0, 1)
    return functional.resize(image, list(size), InterpolationMode(interpolation), antialias=True)


def resample_to(
    out: UInt8[np.ndarray, "3 size size"], pixels: UInt8[np.ndarray, "h w 3"], interpolation: Interpolation
) -> None:
    """What `resample` gives, written to `out`: turned to channels first by the kernel itself, which saves a pass."""
    aten = torch.ops.aten
    kernel = aten._upsample_bicubic2d_aa if interpolation == "bicubic" else aten._upsample_bilinear2d_aa
    owned = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).permute(2, 0, 1)
    kernel.out(owned[None], list(out.shape[1:]), False, None, None, out=torch.from_numpy(out)[None])


def resample_box(
    pixels: UInt8[np.ndarray, "h w 3"], box: tuple[float, ...], size: int, interpolation: Interpolation
) -> UInt8[Tensor, "3 size size"]:
    """The square view of a box (left, top, right, bottom) whose sides may lie between pixels, by Pillow.

    Pillow is shown as much as the filter reaches, since the order of its two passes depends on how much it is shown.
    """
    kind = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    left, top, right, bottom = box
    across, down = reach(right - left, size), reach(bottom - top, size)
    x, y = max(math.floor(left) - across, 0), max(math.floor(top) - down, 0)
    shown = pixels[y : math.ceil(bottom) + down, x : math.ceil(right) + across]
    near = (left - x, top - y, right - x, bottom - y)
    image = Image.fromarray(np.ascontiguousarray(shown)).resize((size, size), kind, box=near)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def reach(side: float, size: int) -> int:
    """How many pixels beyond a box of a side the bicubic filter looks, where a view of `size` pixels is made of it."""
    return math.ceil(2 * max(side / size, 1))


@final
@spec
class Resize(ViewMaker):
    """The shortest side brought to `size` pixels, then the centred square: zero-shot's usual view.

    Its box is the centred square, true to a pixel of the view and half a pixel of the source.
    """

    size: Side = 224  # pyright: ignore[reportIncompatibleVariableOverride] - a frozen field may be narrower
    """Side of the view, in pixels."""
    interpolation: Interpolation = "bicubic"
    frames: Frames | None = None
    """Frames from the middle of the sample's clip; empty: its picture."""
    kind: Literal["resize"] = "resize"

    @property
    def alters(self) -> frozenset[str]:
        """Nothing that a caption could speak of."""
        return frozenset()

    def plan(self, rng: np.random.Generator, width: int, height: int) -> Plan:
        """The centred square of a picture of `width` x `height` pixels; draws nothing."""
        side = min(width, height)
        return Plan(box=((height - side) // 2, (width - side) // 2, side, side))

    def rows(self, plan: Plan) -> int:
        """Those that are resized: of a picture of a usual shape, all."""
        top, _, side, _ = plan.box
        return top + side + _MARGIN * side

    def cut(self, pixels: UInt8[np.ndarray, "h w 3"], plan: Plan, out: UInt8[np.ndarray, "3 size size"]) -> None:
        """The planned view of a decoded picture, written to `out`."""
        out[...] = self.resized(pixels, plan).numpy()

    def resized(self, pixels: UInt8[np.ndarray, "h w 3"], plan: Plan) -> UInt8[Tensor, "3 size size"]:
        """The planned view of a decoded picture."""
        return self._resized(pixels, plan, self.interpolation)

    def resized_mask(self, mask: UInt8[np.ndarray, "h w"], plan: Plan) -> UInt8[Tensor, "size size"]:
        """The planned view of a picture's mask: the same geometry, every pixel the nearest one's class."""
        return self._resized(mask[:, :, None], plan, "nearest-exact")[0]

    def _resized(
        self, pixels: UInt8[np.ndarray, "h w c"], plan: Plan, interpolation: Interpolation | Literal["nearest-exact"]
    ) -> UInt8[Tensor, "c size size"]:
        from torchvision.transforms.v2 import functional

        top, left, side, _ = plan.box
        rows = slice(max(0, top - _MARGIN * side), top + side + _MARGIN * side)
        columns = slice(max(0, left - _MARGIN * side), left + side + _MARGIN * side)
        image = resample(pixels[rows, columns], (self.size,), interpolation)
        return functional.center_crop(image, [self.size, self.size])
