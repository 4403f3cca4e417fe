"""Transformer blocks of predictors: timm's, initialised as MAE's decoder (arXiv:2111.06377)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from onestage.layers.attention import unfuse_without_gpu


def transformer_blocks(
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    norm: Callable[..., nn.Module] | None = None,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
) -> nn.Sequential:
    """`depth` pre-norm blocks, not yet initialised; with layer norm unless another `norm` of a width is given."""
    from timm.models.vision_transformer import Block

    kind: Any = norm or partial(nn.LayerNorm, eps=1e-6)
    blocks = nn.Sequential(
        *(
            Block(
                width,
                heads,
                mlp_ratio,
                qkv_bias=True,
                init_values=layer_scale,
                drop_path=drop_path,
                norm_layer=kind,
            )
            for _ in range(depth)
        )
    )
    unfuse_without_gpu(blocks)
    return blocks


def check_widths(width: int, heads: int) -> None:
    """A decoder's width holds sines and cosines of two axes, and an equal share for each head.

    Raises:
        ValueError: when they do not fit.
    """
    if width % 4 or width % heads:
        raise ValueError(
            f"the width of a decoder is a multiple of 4 (sine-cosine positions) and of its heads: {width} with {heads} "
            "heads is not"
        )


def xavier(module: nn.Module) -> None:
    """MAE's initialisation, for `apply`: xavier-uniform (the joint query-key-value matrix as one), biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
