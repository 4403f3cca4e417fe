"""The operations of RandAugment that colour jitter lacks: tone curves, sharpness and warps, on torchvision's kernels.

Warps move pixels as the PIL operations do that RandAugment was published with, bilinearly; what comes from outside is
the mean colour of ImageNet.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import UInt8
from torch import Tensor

FILL = [124.0, 116.0, 104.0]


def change(image: UInt8[Tensor, "3 h w"], name: str, factor: float) -> UInt8[Tensor, "3 h w"]:
    """The image after one operation.

    Args:
        factor: rotate: degrees against the clock; posterize: bits kept; solarize_add: what values below 128 gain;
            shear: pixels a row; translate: share of the side; others need none.
    """
    from torchvision.transforms.v2 import functional

    height, width = image.shape[-2:]
    match name:
        case "autocontrast":
            return functional.autocontrast(image)
        case "equalize":
            return functional.equalize(image)
        case "invert":
            return functional.invert(image)
        case "posterize":
            return functional.posterize(image, int(factor)) if factor else torch.zeros_like(image)
        case "solarize_add":
            return torch.where(image < 128, (image.int() + int(factor)).clamp(max=255).byte(), image)
        case "sharpness":
            return functional.adjust_sharpness(image, factor)
        case "rotate":
            mode = functional.InterpolationMode.BILINEAR
            return functional.rotate(image, factor, interpolation=mode, fill=FILL)
        case "shear_x":
            return _affine(image, shear=(factor, 0.0))
        case "shear_y":
            return _affine(image, shear=(0.0, factor))
        case "translate_x":
            return _affine(image, move=(-factor * width, 0.0))
        case "translate_y":
            return _affine(image, move=(0.0, -factor * height))
    raise ValueError(f"unknown operation {name!r}")


def _affine(
    image: Tensor, move: tuple[float, float] = (0.0, 0.0), shear: tuple[float, float] = (0.0, 0.0)
) -> UInt8[Tensor, "3 h w"]:
    """The value at (x, y) is that at (x + shear_x y - move_x, y + shear_y x - move_y), counted from the upper left."""
    from torchvision.transforms.v2 import functional

    degrees = [math.degrees(math.atan(part)) for part in shear]
    mode = functional.InterpolationMode.BILINEAR
    return functional.affine(image, 0.0, list(move), 1.0, degrees, interpolation=mode, fill=FILL, center=[0.0, 0.0])
