"""transformers' image towers: CLIP and MetaCLIP 2, SigLIP and SigLIP 2 of a fixed size, DINOv2, DINOv3.

Facts that differ between them: CLIP's last state is before its final norm, SigLIP's and DINO's after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.looks import QueryKey
from onestage.spec import UserError
from onestage.teachers.tower import Rows, Tower, alone, no_lift, split
from onestage.types import Grid

Pooling = Literal["class token", "attention", "class token, no texts"]


@final
class HfTower(Tower):
    """A vision model of transformers, with the projection or pooling head of the model around it."""

    def __init__(self, model: Any, pooling: Pooling, size: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.network: Any = model if pooling == "class token, no texts" else model.vision_model
        config = self.network.config
        if size % config.patch_size:
            raise UserError(f"images of {size} pixels are not filled by its patches of {config.patch_size}")
        self.grid: Grid = (size // config.patch_size, size // config.patch_size)
        self.width = int(config.hidden_size)
        self.projection: Any = model.visual_projection if pooling == "class token" else None
        self.lack, self.joint, self.prefix = "", self.width, 0
        if pooling == "class token":
            self.joint, self.prefix = int(model.visual_projection.out_features), 1
        elif pooling == "class token, no texts":
            self.joint, self.lack = None, f"{type(model).__name__} never saw a text"
            # DINOv2 without registers has no such field.
            self.prefix = 1 + int(getattr(config, "num_register_tokens", 0))

    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        rows = self.network(pixel_values=images).last_hidden_state
        if self.pooling == "attention":
            return Rows(self.network.head(rows), rows)
        if self.pooling == "class token":
            rows = self.network.post_layernorm(rows)
        return Rows(rows[:, 0], rows[:, self.prefix :])

    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        rows = self.raw(images)
        if self.pooling == "attention":
            return Rows(rows.pooled, alone(self.network.head, rows.patches))
        return Rows(self.projection(rows.pooled), self.projection(rows.patches))

    def blocks(self) -> Sequence[nn.Module]:
        return [] if self.pooling == "class token, no texts" else list(self.network.encoder.layers)

    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        if self.pooling != "class token":
            raise no_lift(self)
        return split(self.projection(self.network.post_layernorm(output)), self.prefix)

    def attention(self) -> nn.Module | None:
        return self.network.encoder.layers[-1].self_attn if self.pooling == "class token" else None

    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        heads = (attention.num_heads, attention.head_dim)
        query, key = (side(rows).unflatten(2, heads).transpose(1, 2) for side in (attention.q_proj, attention.k_proj))
        return query, key, attention.scale
