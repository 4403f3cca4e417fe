"""open_clip's own VisionTransformer as an image tower: CLIP pooled by its class token or a mean, and CoCa."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from onestage.layers.looks import QueryKey, queries_keys
from onestage.teachers.tower import Rows, Tower, alone, no_lift
from onestage.types import Grid


@final
class ClipTower(Tower):
    """Rows after `ln_post`, projected by `proj`; the class token or their mean is pooled."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network: Any = network
        self.grid: Grid = (int(network.grid_size[0]), int(network.grid_size[1]))
        self.width = int(network.class_embedding.shape[0])
        self.lack, self.prefix = "", 1
        if network.final_ln_after_pool:
            self.lack = "its norm comes after the mean of its rows (CLIPA), so a row alone has no exact place in it"
        elif network.pool_type not in {"tok", "avg"} or network.proj is None:
            self.lack = f"it pools in a way of its own ({network.pool_type})"
        self.joint = None if self.lack else int(self.network.proj.shape[1])

    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        rows = blocks(self.network, images)
        normed = self.network.ln_post(rows)
        if self.network.pool_type != "avg":
            return Rows(normed[:, 0], normed[:, 1:])
        if self.network.final_ln_after_pool:
            return Rows(self.network.ln_post(rows[:, 1:].mean(dim=1)), normed[:, 1:])
        return Rows(normed[:, 1:].mean(dim=1), normed[:, 1:])

    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        rows = self.raw(images)
        return Rows(rows.pooled @ self.network.proj, rows.patches @ self.network.proj)

    def blocks(self) -> Sequence[nn.Module]:
        return blocks_of(self.network)

    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        rows = self.network.ln_post(output) @ self.network.proj
        return Rows(rows[:, 1:].mean(dim=1) if self.network.pool_type == "avg" else rows[:, 0], rows[:, 1:])

    def attention(self) -> nn.Module | None:
        return attention_of(self.network)

    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        return queries_keys(attention, rows, rope)


@final
class CocaTower(Tower):
    """CoCa (arXiv:2205.01917) as open_clip has it: the first query of an attention pool, normed and projected.

    Nothing norms its rows but the pool's own `ln_k`: so that is their final norm, and the class token their pooled row.
    """

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network: Any = network
        self.grid: Grid = (int(network.grid_size[0]), int(network.grid_size[1]))
        self.width = int(network.class_embedding.shape[0])
        self.prefix = 1
        exact = network.attn_pool_contrastive is None and network.pool_type == "tok" and network.proj is not None
        self.lack = "" if exact else "its attention pool has two stages, so a row alone has no exact place in it"
        self.joint = int(self.network.proj.shape[1]) if exact else None

    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        normed = self.network.attn_pool.ln_k(blocks(self.network, images))
        return Rows(normed[:, 0], normed[:, 1:])

    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        rows = self.raw(images)
        everything = torch.cat([rows.pooled.unsqueeze(1), rows.patches], dim=1)
        return Rows(self._pool(everything), alone(self._pool, rows.patches))

    def blocks(self) -> Sequence[nn.Module]:
        return blocks_of(self.network)

    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        raise no_lift(self)

    def attention(self) -> nn.Module | None:
        return attention_of(self.network)

    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        return queries_keys(attention, rows, rope)

    def _pool(self, normed: Float[Tensor, "b n d"]) -> Float[Tensor, "b k"]:
        """What the first query reads: the others serve the captions."""
        pool = self.network.attn_pool
        query = pool.ln_q(pool.query[:1]).expand(normed.shape[0], -1, -1)
        read = pool.attn(query, normed, normed, need_weights=False)[0]
        return self.network.ln_post(read[:, 0]) @ self.network.proj


def blocks(network: VisionTransformer, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b n d"]:
    """The class token and the patch rows after the last block, before any norm."""
    answer = network.forward_intermediates(
        images, indices=1, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
    )
    return torch.cat([answer["image_intermediates_prefix"][-1], answer["image_intermediates"][-1]], dim=1)


def blocks_of(network: Any) -> Sequence[nn.Module]:
    """The blocks of open_clip's tower, whose outputs have the batch first."""
    return list(network.transformer.resblocks) if network.transformer.batch_first else []


def attention_of(network: Any) -> nn.Module | None:
    """The attention of its last block, where it is torch's."""
    found = [block.attn for block in blocks_of(network) if isinstance(block, ResidualAttentionBlock)]
    return found[-1] if found and isinstance(found[-1], nn.MultiheadAttention) else None
