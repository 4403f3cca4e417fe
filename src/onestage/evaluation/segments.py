"""How right a segmentation is: one confusion matrix over all pixels of a data set, and what is read off it.

Mean IoU is over the classes of the whole data set (Pascal VOC's definition), never a mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from onestage.roles import VOID

CODES = VOID + 1
"""Every number that a mask can hold."""


def confusion(truth: UInt8[Tensor, "*b h w"], guess: UInt8[Tensor, "*b h w"]) -> Int[Tensor, "codes codes"]:
    """How many pixels of each class (row) were taken for each class (column); void ones count for nothing."""
    counts = truth != VOID
    pairs = truth[counts].long() * CODES + guess[counts].long()
    return torch.bincount(pairs, minlength=CODES**2).reshape(CODES, CODES).cpu()


def scores(matrix: Int[Tensor, "codes codes"]) -> dict[str, float]:
    """`miou` over the classes that occur in data or guesses, `pixel_accuracy`, and `mean_class_accuracy` over those
    that occur in data.

    Args:
        matrix: of at least one pixel.
    """
    right, true = matrix.diagonal().double(), matrix.sum(dim=1).double()
    union = true + matrix.sum(dim=0) - right
    return {
        "miou": (right / union)[union > 0].mean().item(),
        "pixel_accuracy": (right.sum() / true.sum()).item(),
        "mean_class_accuracy": (right / true)[true > 0].mean().item(),
    }


def per_class(matrix: Int[Tensor, "codes codes"], names: Sequence[str]) -> dict[str, float]:
    """`iou_NAME` of every class that occurs in data or guesses; a class without a name has its number."""
    right = matrix.diagonal()
    union = matrix.sum(dim=1) + matrix.sum(dim=0) - right
    return {
        f"iou_{names[number] if number < len(names) else number}": (right[number] / union[number]).item()
        for number in union.nonzero().flatten().tolist()
    }


def constant(matrix: Int[Tensor, "codes codes"], number: int) -> Int[Tensor, "codes codes"]:
    """The matrix as it would be if every pixel were taken for one class."""
    found = torch.zeros_like(matrix)
    found[:, number] = matrix.sum(dim=1)
    return found
