"""Initialisations for pre-training; timm's own serve fine-tuning.

`mae`: xavier-uniform everywhere, the patch embedding as a linear layer, class token N(0, .02), fixed sine-cosine
positions (facebookresearch/mae). `beit`: normal of .02 (EVA-01: .015) cut at one deviation, then the last layer of
every branch of block l divided by sqrt(2l) (microsoft/unilm). `eva02`: xavier-normal, patch embedding xavier-uniform,
and the sub-LN factor sqrt(ln 2L) of Foundation Transformers (arXiv:2210.06423) on value, output and feed-forward
weights, where blocks have a norm inside (the base and large ones; tiny and small do not).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Initialisation = Literal["timm", "mae", "beit", "eva02"]
_SUB_LN = ("mlp.fc1", "mlp.fc2", "attn.proj", "attn.v_proj")


@torch.no_grad()
def initialise(backbone: nn.Module, how: Initialisation, depth: int, std: float = 0.02, before: int = 0) -> None:
    """Initialise a timm ViT or EVA-02 in place; `std` is the deviation of `beit`'s normal, and `before` how many blocks
    stand before its own."""
    if how == "timm":
        return
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear):
            _linear(module, how, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and name.startswith("patch_embed.proj"):
            _patches(module, how, std)
    plain = how == "eva02" and not any(name.endswith("mlp.norm.weight") for name, _ in backbone.named_parameters())
    for name, parameter in backbone.named_parameters():
        if name in {"cls_token", "reg_token", "pos_embed"}:
            _tokens(parameter, how, std)
        elif parameter.ndim == 2 and ".blocks." in f".{name}" and not plain:
            parameter.mul_(_branch_factor(name, how, depth, before))


def fix_positions(positions: nn.Parameter, table: Float[Tensor, "g d"], prefix: int) -> None:
    """Fixed positions, zero for the class token, not trained."""
    with torch.no_grad():
        positions.copy_(torch.cat([torch.zeros(prefix, table.shape[1]), table]).to(positions).unsqueeze(0))
    positions.requires_grad_(False)


def _linear(module: nn.Linear, how: Initialisation, std: float) -> None:
    if how == "mae":
        nn.init.xavier_uniform_(module.weight)
    elif how == "eva02":
        nn.init.xavier_normal_(module.weight)
    else:
        nn.init.trunc_normal_(module.weight, std=std, a=-std, b=std)


def _patches(module: nn.Conv2d, how: Initialisation, std: float) -> None:
    if how == "beit":
        nn.init.trunc_normal_(module.weight, std=std, a=-std, b=std)
    else:
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _tokens(parameter: Tensor, how: Initialisation, std: float) -> None:
    if how == "mae":
        nn.init.normal_(parameter, std=0.02)
    else:
        nn.init.trunc_normal_(parameter, std=std, a=-std, b=std)


def _branch_factor(name: str, how: Initialisation, depth: int, before: int) -> float:
    if how == "eva02":
        return math.sqrt(math.log(2 * depth)) if any(part in name for part in _SUB_LN) else 1.0
    if how == "beit" and name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
        block = before + int(name.split("blocks.")[1].split(".")[0])
        return 1 / math.sqrt(2 * (block + 1))
    return 1.0
