"""A ViT's weights as the attention and the vision experts of a multiway encoder (VLMo, arXiv:2111.02358, sec. 3.3).

VLMo learns from images first; attention and vision experts of its multiway blocks start from there. The norms inside
attention and feed-forward, which BEiT-3 adds (arXiv:2208.10442), no ViT has: they start as they were drawn, so that
this is a start and not the same function.
"""

from __future__ import annotations

import re

from torch import Tensor

RENAMED = {"norm1.": "norm.", "attn.proj.": "attn.proj.", "norm2.": "image.norm.", "mlp.fc": "image.mlp.fc"}
SCALED = {"attn.proj.": "ls1.gamma", "mlp.fc2.": "ls2.gamma"}
"""Maps of a block, and the layer scale after them, which a multiway block has none of: it enters them."""


def as_experts(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a multiway encoder that those of a ViT encoder of ours are; the rest of either is left out."""
    given = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
    made: dict[str, Tensor] = {}
    for key, value in given.items():
        found = re.fullmatch(r"(blocks\.\d+\.)(.+)", key)
        if found is None:
            made[key] = value
        else:
            inside = _block(found[2], value, {name: given.get(found[1] + name) for name in SCALED.values()})
            made |= {found[1] + name: one for name, one in inside.items()}
    return made


def _block(name: str, value: Tensor, scales: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """One weight of a block as those of a multiway block; none where that has no such weight."""
    if name.startswith("attn.qkv."):
        kind = name.removeprefix("attn.qkv.")
        return {f"attn.{part}_proj.{kind}": one for part, one in zip("qkv", value.chunk(3), strict=True)}
    scale = next((scales[gamma] for begin, gamma in SCALED.items() if name.startswith(begin)), None)
    if scale is not None:
        value = value * (scale if value.ndim == 1 else scale.unsqueeze(1))
    return {new + name.removeprefix(old): value for old, new in RENAMED.items() if name.startswith(old)}
