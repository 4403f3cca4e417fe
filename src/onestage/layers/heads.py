"""Linear layers with something between them: the heads of siamese methods (BYOL, arXiv:2006.07733; MoCo v3,
arXiv:2104.02057; DINO, arXiv:2104.14294), which differ in what stands between and at the end."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.ops import at_least_fp32

Activation = Literal["gelu", "relu"]
Norm = Literal["none", "batch"]
"""Between a layer and its activation: nothing, or batch norm. A bias before batch norm would be subtracted again, so
there is none."""
End = Literal["bias", "plain", "batch"]
"""The last layer: with a bias, without, or without and then batch norm without scale and shift."""


def head(widths: list[int], activation: Activation, norm: Norm, end: End) -> nn.Sequential:
    """Layers from each width to the next; weights from a normal of 0.02 cut at two, biases 0."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(_linear(before, after, norm == "none"))
        if norm == "batch":
            layers.append(RowBatchNorm(after))
        layers.append(nn.GELU() if activation == "gelu" else nn.ReLU())
    layers.append(_linear(widths[-2], widths[-1], end == "bias"))
    if end == "batch":
        layers.append(RowBatchNorm(widths[-1], affine=False))
    return nn.Sequential(*layers)


def _linear(before: int, after: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(before, after, bias=bias)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


@final
class RowBatchNorm(nn.Module):
    """Batch norm of each channel over all rows of all samples, in at least fp32. Built as timm builds norms."""

    def __init__(
        self,
        width: int,
        affine: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=affine, device=device, dtype=dtype)

    def forward(self, rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.norm(at_least_fp32(rows).flatten(0, -2)).view(rows.shape)
