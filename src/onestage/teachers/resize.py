"""Pixels brought to a teacher's own size."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from onestage.layers.normalise import in_unit
from onestage.types import Geometry, Images

Interpolation = Literal["bicubic", "bilinear"]
Clips = UInt8[Tensor, "b c f s"] | Float[Tensor, "b c f s"]
SquareImages = UInt8[Tensor, "b c s s"] | Float[Tensor, "b c s s"]


def to_size(pixels: Images, size: int, interpolation: Interpolation) -> SquareImages:
    """Images resized with antialiasing to a square of `size`, in [0, 1]; unchanged where they have it already."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = functional.interpolate(
        in_unit(pixels), (size, size), mode=interpolation, align_corners=False, antialias=True
    )
    return resized.clamp(0, 1)


def clip_of(pixels: Images, size: int, frames: int) -> Clips:
    """Images as `to_size` gives them, each as a clip of so many frames in which nothing moves; clips of so many frames
    of that size are unchanged."""
    if pixels.shape[-2:] == (frames * size, size):
        return pixels
    return to_size(pixels, size, "bicubic").repeat(1, 1, frames, 1)


def whole(pixels: Images) -> Geometry:
    """The geometry of images seen whole."""
    b, _, h, w = pixels.shape
    box = torch.tensor([0.0, 0.0, h, w], device=pixels.device).expand(b, 4)
    return Geometry(box, torch.zeros(b, dtype=torch.bool, device=pixels.device))
