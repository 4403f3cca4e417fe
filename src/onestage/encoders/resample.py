"""Weights of a ViT for another patch or another size of image, as EVA converts its own (14 to 16 pixels, 224 to 336).

The kernel of the patch embedding and the table of positions are resampled by bicubic interpolation without
antialiasing, each as if it were a picture (baaivision/EVA; arXiv:2303.15389). Rotary tables hold no weights: they are
stretched to the grid that they learned on. FlexiViT's pseudo-inverse (arXiv:2212.08013) gives other kernels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.types import Grid

KERNELS = ("patch_embed.proj.weight", "tower.conv1.weight")
POSITIONS = ("pos_embed", "positional_embedding")


def resample(name: str, given: Tensor, wanted: torch.Size, grid: Grid) -> Tensor | None:
    """A weight of an encoder brought to another shape; None where only learning can do that. Words of a shorter context
    keep their positions.

    Args:
        name: its name in the encoder.
        wanted: the shape that the encoder has.
        grid: the rows and columns of the encoder's cells.
    """
    if name.endswith(KERNELS) and given.shape[:2] == wanted[:2]:
        return kernel(given, (wanted[-2], wanted[-1]))
    if name.endswith(POSITIONS) and grid[0] == 1:
        return given[: wanted[0]] if given.shape[1:] == wanted[1:] and len(given) > wanted[0] else None
    if name.endswith(POSITIONS) and given.shape[-1] == wanted[-1]:
        return positions(given, grid, wanted[-2] - grid[0] * grid[1])
    return None


def kernel(given: Float[Tensor, "d c p q"], side: tuple[int, int]) -> Float[Tensor, "d c r s"]:
    """The kernel of a patch embedding for patches of another side, in pixels."""
    resampled = functional.interpolate(given.float(), side, mode="bicubic", align_corners=False)
    return resampled.to(given.dtype)


def positions(given: Float[Tensor, "*b n d"], grid: Grid, prefix: int) -> Float[Tensor, "*b m d"] | None:
    """A table of learned positions for another grid; the first `prefix` rows belong to no cell and stay. None where
    the given cells form no square."""
    before, cells = given[..., :prefix, :], given[..., prefix:, :]
    side, width = math.isqrt(cells.shape[-2]), cells.shape[-1]
    if side * side != cells.shape[-2]:
        return None
    picture = cells.float().reshape(1, side, side, width).permute(0, 3, 1, 2)
    resampled = functional.interpolate(picture, grid, mode="bicubic", align_corners=False)
    rows = resampled.permute(0, 2, 3, 1).reshape(*given.shape[:-2], grid[0] * grid[1], width)
    return torch.cat([before, rows.to(given.dtype)], dim=-2)
