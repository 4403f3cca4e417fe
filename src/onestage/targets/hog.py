"""Histograms of oriented gradients, patch by patch: the target of MaskFeat (arXiv:2112.09133, sec. 3.2).

Per channel, with Sobel slopes gx and gy of the normalised image (reflected at its border): every pixel votes with its
magnitude for one of nine unsigned directions, floor(9 atan2(gx, gy) / pi) mod 9. Votes are summed over cells of 8 x 8
pixels, and the nine sums of a cell and channel are brought to unit length. There is no window and no block norm, as in
the paper's own code (facebookresearch/SlowFast); other implementations differ in both.
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
from onestage.ops import gather_rows
from onestage.roles import TargetMaker
from onestage.spec import UserError, spec
from onestage.targets.patched import pixels_of
from onestage.targets.rows import CellRows
from onestage.types import Target, Tokens, View, Wanted

SHORTEST = 1e-12
"""Histograms shorter than this are not stretched to unit length (torch's `normalize`, as in the paper's code)."""


@final
@spec
class Hog:
    """Histograms of every cell of a patch. They have no pooled row, so `rows` names grid cells only."""

    rows: CellRows
    cell: Annotated[int, Field(ge=1)] = 8
    """Side of a cell in pixels; a patch of the encoder is made of whole cells."""
    bins: Annotated[int, Field(ge=1)] = 9
    normalise: Statistics = "imagenet"
    """Statistics of the channels, applied first."""
    kind: Literal["hog"] = "hog"

    def build(self, patch: int, tubelet: int = 1) -> HogTarget:
        """The target for patches of `patch` pixels a side, that of the encoder, and of so many frames.

        Raises:
            UserError: when cells do not fill a patch, or it is of several frames.
        """
        if tubelet > 1:
            raise UserError(f"target hog: describes patches of one frame; set tubelet: 1 (it is {tubelet})")
        if patch % self.cell:
            raise UserError(f"target hog: cells of {self.cell} pixels do not fill patches of {patch}; set target.cell")
        return HogTarget(self, patch)


@final
class HogTarget(TargetMaker):
    """Rows of 3 * bins * (patch / cell)^2 values, ordered (channel, bin, cell row, cell column)."""

    def __init__(self, wanted: Hog, patch: int) -> None:
        super().__init__()
        self.cell, self.bins, self.patch = wanted.cell, wanted.bins, patch
        self.width = 3 * wanted.bins * (patch // wanted.cell) ** 2
        self.normalise = Normalise(wanted.normalise)

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """The wanted patches' histograms, in fp32.

        Raises:
            UserError: when the view is not the wanted grid of patches.
        """
        grid = wanted.grid
        pixels = pixels_of("hog", source, grid, self.patch, self.normalise)
        with torch.autocast(pixels.device.type, enabled=False):
            found = histograms(pixels, self.cell, self.bins)
        side = self.patch // self.cell
        # (b, channel, bin, patch row, cell row, patch column, cell column) to one row of values a patch.
        cells = found.unflatten(4, (grid[1], side)).unflatten(3, (grid[0], side))
        rows = cells.permute(0, 3, 5, 1, 2, 4, 6).flatten(3).flatten(1, 2)
        return Target(gather_rows(rows, wanted.cell), identity, None)

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""


def histograms(images: Float[Tensor, "b c h w"], cell: int, bins: int) -> Float[Tensor, "b c bins hc wc"]:
    """Unit histograms of every cell and channel."""
    sobel = images.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect").flatten(0, 1).unsqueeze(1)
    slopes = functional.conv2d(padded, torch.stack([sobel, sobel.T]).unsqueeze(1))
    across, down = slopes.unflatten(0, images.shape[:2]).unbind(dim=2)
    votes = images.new_zeros(*images.shape[:2], bins, *images.shape[2:])
    bin_of = (torch.atan2(across, down) / math.pi * bins).floor().long() % bins
    votes.scatter_(2, bin_of.unsqueeze(2), torch.hypot(across, down).unsqueeze(2))
    sums = functional.avg_pool2d(votes.flatten(0, 1), cell) * cell**2
    return functional.normalize(sums.unflatten(0, images.shape[:2]), dim=2, eps=SHORTEST)
