"""A timm model as an image tower: any model whose features are rows or a map; joint rows where they are exact.

open_clip's `TimmModel` is a trunk of timm and a head of its own after it; a plain timm model has no joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from onestage.layers.looks import QueryKey, queries_keys, readable
from onestage.spec import UserError
from onestage.teachers.tower import Rows, Tower, alone, no_lift, split
from onestage.types import Grid

NO_TEXTS = "timm's models come without texts; the same weights as open_clip: or hf: have them"


@final
class TimmTower(Tower):
    """Features after the trunk's final norm; its own pooling before the head."""

    def __init__(self, trunk: Any, size: int, head: nn.Module | None, joint: int | None) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.head = head
        # Maps of features have none, nor has every other kind of rows the name.
        self.prefix = int(getattr(trunk, "num_prefix_tokens", 0))
        self.last_norm: nn.Module = getattr(trunk, "fc_norm", None) or nn.Identity()
        self.width = int(trunk.num_features)
        self.grid = _grid(trunk, size, self.prefix)
        self.lack = NO_TEXTS if head is None else _lack(trunk, head)
        self.joint = None if self.lack else joint

    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        features = self.trunk.forward_features(images)
        pooled = self.trunk.forward_head(features, pre_logits=True)
        if features.ndim == 4:
            return Rows(pooled, _as_rows(features, self.width))
        patches = features[:, self.prefix :]
        if getattr(self.trunk, "attn_pool", None) is not None:
            return Rows(pooled, patches)
        # With an average the trunk's final norm waits behind the pooling; each row is normed by it as the mean is.
        return Rows(pooled, self.last_norm(patches))

    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        features = self.trunk.forward_features(images)
        pooled, patches = self._project(self.trunk.pool(features)), features[:, self.prefix :]
        if self.trunk.attn_pool is None:
            return Rows(pooled, self._project(patches))
        return Rows(pooled, alone(lambda row: self._project(self.trunk.attn_pool(row)), patches))

    def blocks(self) -> Sequence[nn.Module]:
        if not isinstance(self.trunk, (VisionTransformer, Eva)):
            return []
        found: Any = self.trunk.blocks
        return list(found)

    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        if self.trunk.global_pool != "token":
            raise no_lift(self)
        return split(self._project(self.trunk.norm(output)), self.prefix)

    def attention(self) -> nn.Module | None:
        blocks = self.blocks() if self.prefix else []
        last: Any = blocks[-1] if blocks else None
        found = None if last is None else last.attn
        return found if readable(found) else None

    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        return queries_keys(attention, rows, rope)

    def _project(self, rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        assert self.head is not None, "a tower with a joint space has a head"
        return self.head(self.trunk.head(self.trunk.fc_norm(rows)))


def _lack(trunk: Any, head: nn.Module) -> str:
    """Why each row has no exact place in the joint space; empty where it has one."""
    name = type(trunk).__name__
    if not isinstance(trunk, (VisionTransformer, Eva)):
        return f"{name} pools a map of features, so a cell of it has no exact place there"
    if trunk.attn_pool is not None:
        exact = isinstance(trunk.attn_pool, AttentionPoolLatent) and trunk.attn_pool.pos_embed is None
        return "" if exact else f"its attention pool ({type(trunk.attn_pool).__name__}) does not see a row alone"
    if trunk.global_pool == "token":
        return ""
    after = [*_inside(trunk.fc_norm), *_inside(trunk.head), *_inside(head)]
    bent = [type(layer).__name__ for layer in after if not isinstance(layer, (nn.Linear, nn.Identity, nn.Dropout))]
    if trunk.global_pool != "avg" or bent:
        why = f"{bent[0]} comes after it" if bent else f"its pooling is '{trunk.global_pool}'"
        return f"it pools {name}'s rows by a mean and {why}, so a row alone has no exact place there"
    return ""


def _inside(module: nn.Module) -> list[nn.Module]:
    """The layers of a head, without the containers around them."""
    return [layer for layer in module.modules() if not list(layer.children()) and not isinstance(layer, nn.Sequential)]


@torch.no_grad()
def _grid(trunk: Any, size: int, prefix: int) -> Grid:
    """Rows and columns of its cells; where the library does not say, one blank image does."""
    if isinstance(trunk, (VisionTransformer, Eva)):
        embed: Any = trunk.patch_embed
        if embed.strict_img_size and embed.img_size is not None and tuple(embed.img_size) != (size, size):
            raise UserError(f"it was built for images of {embed.img_size[0]} pixels, but its configuration says {size}")
        rows, columns = embed.dynamic_feat_size((size, size))
        return int(rows), int(columns)
    device, name, width = next(trunk.parameters()).device, type(trunk).__name__, int(trunk.num_features)
    blank = trunk.eval().forward_features(torch.zeros(1, 3, size, size, device=device))
    shape = None
    if isinstance(blank, Tensor) and blank.ndim == 4 and width in (blank.shape[1], blank.shape[3]):
        shape = blank.shape[2:] if blank.shape[1] == width else blank.shape[1:3]
    elif isinstance(blank, Tensor) and blank.ndim == 3:
        found = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
        shape = found if found is not None and found[0] * found[1] == blank.shape[1] - prefix else None
    if shape is None:
        raise UserError(f"{name}: its features are no grid of cells, so it gives no dense rows")
    pooled = trunk.forward_head(blank, pre_logits=True)
    if pooled.shape != (1, width):
        raise UserError(f"{name}: its pooled row {tuple(pooled.shape)} is not as wide as a cell, {width}")
    return int(shape[0]), int(shape[1])


def _as_rows(features: Float[Tensor, "b x y z"], width: int) -> Float[Tensor, "b g d"]:
    """A map of features, its channels first (convolutions) or last (Swin), as rows."""
    return features.flatten(2).transpose(1, 2) if features.shape[1] == width else features.flatten(1, 2)
