"""Pixels brought to a teacher's own size."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.types import Geometry

Interpolation = Literal["bicubic", "bilinear"]


def to_size(pixels: Float[Tensor, "b c h w"], size: int, interpolation: Interpolation) -> Float[Tensor, "b c s s"]:
    """Images in [0, 1] resized with antialiasing to a square of `size`; unchanged where they have it already."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = functional.interpolate(pixels, (size, size), mode=interpolation, align_corners=False, antialias=True)
    return resized.clamp(0, 1)


def whole(pixels: Float[Tensor, "b c h w"]) -> Geometry:
    """The geometry of images seen whole."""
    b, _, h, w = pixels.shape
    box = torch.tensor([0.0, 0.0, h, w], device=pixels.device).expand(b, 4)
    return Geometry(box, torch.zeros(b, dtype=torch.bool, device=pixels.device))
