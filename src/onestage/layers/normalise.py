"""Normalising: pixels by the statistics of a model's training images, and rows to unit length.

The numbers are those of torchvision's ImageNet models and of OpenAI's CLIP (arXiv:2103.00020); `half` maps
[0, 1] to [-1, 1], as Google's ViT and SigLIP families do.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.lent import Reused
from onestage.ops import at_least_fp32
from onestage.types import Images

Statistics = Literal["imagenet", "clip", "half", "none"]
Channels = tuple[float, float, float]

STATISTICS: dict[Statistics, tuple[Channels, Channels]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue, for pixels in [0, 1]."""

_MEMORY = Reused()
AT_ONCE = 1 << 18
"""Floats that are made at once on a CPU: a megabyte, which its cache holds."""

SHORTEST = 1e-6
"""Length below which a row has no direction."""


@final
class Normalise(nn.Module):
    """`normalised` by statistics that have a name."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        mean, std = STATISTICS[statistics]
        # Not persistent: constants of the spec, which no checkpoint may change.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Images) -> Float[Tensor, "b 3 h w"]:
        return normalised(pixels, self.mean, self.std)


def in_unit(pixels: Images) -> Float[Tensor, "b c h w"]:
    """Pixels as floats in [0, 1]."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)


def normalised(pixels: Images, mean: Float[Tensor, "c 1 1"], std: Float[Tensor, "c 1 1"]) -> Float[Tensor, "b c h w"]:
    """(pixels - mean) / std per channel, of pixels in [0, 1] in their precision, of uint8 in fp32.

    On the CPU the floats of uint8 pixels are made in memory that is used again, some images at a time, so that all but
    the first pass over them find them in the processor's cache.
    """
    if pixels.is_floating_point():
        return ((pixels - mean) / std).to(pixels.dtype)
    shift, scale = 255 * mean, 1 / (255 * std)
    if pixels.device.type != "cpu" or not pixels.numel() or torch.compiler.is_compiling():
        return pixels.float().sub_(shift).mul_(scale)
    made = _MEMORY.take(4 * pixels.numel()).view(torch.float32).view(pixels.shape)
    several = max(AT_ONCE // pixels[0].numel(), 1)
    for floats, some in zip(made.split(several), pixels.split(several), strict=True):
        floats.copy_(some).sub_(shift).mul_(scale)
    return made


def unit(rows: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """Each row divided by its length, in at least fp32. A row shorter than `SHORTEST` is left as it is.

    Dividing by max(length, eps), the usual guard, gives a zero row a gradient of 1 / eps: finite and ruinous.
    """
    rows = at_least_fp32(rows)
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(length > SHORTEST, length, 1.0)
