"""Colour changes of a view: jitter, grey, blur and solarising.

SimCLR (arXiv:2002.05709, appendix A) and BYOL (arXiv:2006.07733, appendix B). Order and factors are drawn
here; the pixels are torchvision's.
"""

from __future__ import annotations

from typing import Annotated, final

import numpy as np
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from onestage.spec import spec
from onestage.views.tones import change

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]

Operations = tuple[tuple[str, float], ...]
"""Colour operations in their order, each with its factor (blur: sigma in pixels; solarize: threshold)."""

SIGMA = (0.1, 2.0)
THRESHOLD = 128.0


@final
@spec
class Colour:
    """Which colour operations a view may apply. With no argument, none."""

    brightness: Strength = 0.0
    """The factor is uniform in [max(0, 1 - brightness), 1 + brightness]; contrast and saturation likewise."""
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The shift is uniform in [-hue, hue], in turns of the colour circle."""
    probability: Probability = 0.8
    """Probability of the jitter: the four above together, in random order."""
    grey: Probability = 0.0
    """Probability of removing all colour."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur with sigma uniform in [0.1, 2] pixels of the view."""
    solarize: Probability = 0.0
    """Probability of inverting every value of 128 and above."""

    @property
    def changes(self) -> bool:
        """Whether any operation can happen."""
        jitters = self.probability > 0 and max(self.brightness, self.contrast, self.saturation, self.hue) > 0
        return jitters or max(self.grey, self.blur, self.solarize) > 0

    def draw(self, rng: np.random.Generator) -> Operations:
        """The operations for one view: jitter in random order, then grey, blur and solarising."""
        operations = self._jitter(rng) if rng.random() < self.probability else []
        if rng.random() < self.grey:
            operations.append(("grey", 1.0))
        if rng.random() < self.blur:
            operations.append(("blur", rng.uniform(*SIGMA)))
        if rng.random() < self.solarize:
            operations.append(("solarize", THRESHOLD))
        return tuple(operations)

    def _jitter(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        ranges = {
            name: (max(0.0, 1 - strength), 1 + strength)
            for name, strength in (
                ("brightness", self.brightness),
                ("contrast", self.contrast),
                ("saturation", self.saturation),
            )
            if strength > 0
        }
        if self.hue > 0:
            ranges["hue"] = (-self.hue, self.hue)
        names = list(ranges)
        return [(names[i], rng.uniform(*ranges[names[i]])) for i in rng.permutation(len(names))]


def recolour(image: UInt8[Tensor, "3 h w"], operations: Operations) -> UInt8[Tensor, "3 h w"]:
    """The image after the operations, applied in their order."""
    for name, factor in operations:
        image = _apply(image, name, factor)
    return image


def _apply(image: Tensor, name: str, factor: float) -> Tensor:
    from torchvision.transforms.v2 import functional

    match name:
        case "brightness":
            return functional.adjust_brightness(image, factor)
        case "contrast":
            return functional.adjust_contrast(image, factor)
        case "saturation":
            return functional.adjust_saturation(image, factor)
        case "hue":
            return functional.adjust_hue(image, factor)
        case "grey":
            return functional.rgb_to_grayscale(image, num_output_channels=3)
        case "blur":
            return functional.gaussian_blur(image, [_kernel(factor, min(image.shape[-2:]))] * 2, [factor] * 2)
        case "solarize":
            return functional.solarize(image, factor)
    return change(image, name, factor)


def _kernel(sigma: float, side: int) -> int:
    """An odd kernel that reaches three sigma, but not beyond what the border of a small view can reflect."""
    return 2 * min(max(1, round(3 * sigma)), (side - 1) // 2) + 1
