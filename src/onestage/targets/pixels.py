"""The pixels of the target's view, patch by patch (MAE, arXiv:2111.06377, section 3).

They are as they are (SimMIM, arXiv:2111.09886), normalised in each patch (MAE) or, of patches that are several frames
deep, in each channel (VideoMAE, arXiv:2203.12602), or by what lies around each pixel: the 47 x 47 pixels about it as
far as they are in the picture (SimMIM for Swin V2, microsoft/Swin-Transformer).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.layers.normalise import Normalise, Statistics
from onestage.ops import gather_rows, patchify, patchify_tubes, unpatchify
from onestage.roles import TargetMaker
from onestage.spec import spec
from onestage.targets.patched import pixels_of
from onestage.targets.rows import CellRows
from onestage.types import Target, Tokens, View, Wanted

EPSILON = 1e-6


@final
@spec
class Pixels:
    """Patches of normalised pixels. They have no pooled row, so `rows` names grid cells only."""

    rows: CellRows
    norm: Literal["patch", "channel", "local", "none"] = "patch"
    """Whether each patch is brought to mean 0 and variance 1, each channel of a patch, or each pixel by the window
    around it."""
    window: Annotated[int, Field(ge=3)] = 47
    """Side of that window in pixels: odd."""
    normalise: Statistics = "imagenet"
    """Statistics of the channels, applied first."""
    kind: Literal["pixels"] = "pixels"

    def __post_init__(self) -> None:
        if self.window % 2 == 0:
            raise ValueError(f"window: {self.window} pixels have no middle one; use an odd number")

    def build(self, patch: int, tubelet: int = 1) -> PixelsTarget:
        """The target for patches of `patch` pixels a side, that of the encoder, and of so many frames."""
        return PixelsTarget(self, patch, tubelet)


@final
class PixelsTarget(TargetMaker):
    """Rows of 3 * tubelet * patch^2 values, ordered (frame, row, column, channel)."""

    def __init__(self, wanted: Pixels, patch: int, tubelet: int = 1) -> None:
        super().__init__()
        self.patch, self.tubelet = patch, tubelet
        self.width = 3 * tubelet * patch**2
        self.norm, self.window = wanted.norm, wanted.window
        self.normalise = Normalise(wanted.normalise)

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """The wanted patches, in fp32.

        Raises:
            UserError: when the view is not the wanted grid of patches.
        """
        pixels = pixels_of("pixel", source, wanted.grid, self.patch, self.normalise, self.tubelet)
        if self.norm == "local":
            with torch.autocast(pixels.device.type, enabled=False):
                pixels = standardise_locally(pixels, self.window)
        whole = self.tubelet == 1
        patches = patchify(pixels, self.patch) if whole else patchify_tubes(pixels, self.patch, self.tubelet)
        rows = gather_rows(patches, wanted.cell)
        if self.norm == "channel":
            rows = standardise_channels(rows)
        return Target(standardise(rows) if self.norm == "patch" else rows, identity, None)

    def picture(self, rows: Float[Tensor, "b g p"]) -> Float[Tensor, "b c h w"]:
        """The picture, about in [0, 1], of which these are all patches as they are (norm: none), of a square grid."""
        side = math.isqrt(rows.shape[1])
        assert self.norm == "none" and side * side == rows.shape[1], "checked when declared"
        return unpatchify(rows, self.patch, (side, side)) * self.normalise.std + self.normalise.mean

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""


def standardise(rows: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Each row to mean 0 and variance 1. The variance is unbiased (divided by p - 1), as in MAE's code."""
    variance = rows.var(dim=-1, keepdim=True, unbiased=True)
    return (rows - rows.mean(dim=-1, keepdim=True)) * (variance + EPSILON).rsqrt()


def standardise_channels(rows: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Each channel of each row to mean 0 and variance 1 (unbiased), as in VideoMAE's code (MCG-NJU/VideoMAE)."""
    values = rows.unflatten(-1, (-1, 3))
    deviation, mean = torch.std_mean(values, dim=-2, keepdim=True)
    return ((values - mean) / (deviation + EPSILON)).flatten(-2)


def standardise_locally(images: Float[Tensor, "b c h w"], window: int) -> Float[Tensor, "b c h w"]:
    """Each pixel by the mean and unbiased variance of the window around it, as far as that is in the picture."""

    def mean(values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return functional.avg_pool2d(values, window, stride=1, padding=window // 2, count_include_pad=False)

    count = torch.ones_like(images[:1, :1])
    count = functional.avg_pool2d(count, window, stride=1, padding=window // 2, count_include_pad=True) * window**2
    centre = mean(images)
    variance = (mean(images.square()) - centre.square()) * count / (count - 1)
    return (images - centre) * (variance.clamp_min(0) + EPSILON).rsqrt()
