"""Transformer blocks of predictors: timm's, initialised as MAE's decoder (arXiv:2111.06377)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from onestage.layers.attention import unfuse_without_gpu


def transformer_blocks(width: int, depth: int, heads: int, mlp_ratio: float) -> nn.Sequential:
    """`depth` pre-norm blocks, not yet initialised."""
    from timm.models.vision_transformer import Block

    norm: Any = partial(nn.LayerNorm, eps=1e-6)
    blocks = nn.Sequential(*(Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
    unfuse_without_gpu(blocks)
    return blocks


def xavier(module: nn.Module) -> None:
    """MAE's initialisation, for `apply`: xavier-uniform (the joint query-key-value matrix as one), biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
