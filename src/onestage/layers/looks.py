"""Where the class token of a network looks: its attention in one block, beside what the network gives.

Fused kernels keep no attention, so the one row that is wanted is computed again from the block's own query and key.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

QueryKey = tuple[Tensor, Tensor, float]
"""Queries and keys (b, heads, n, width), and what their products are multiplied by."""
Read = Callable[[Any, Tensor, Tensor | None], QueryKey]


@contextmanager
def looks_of(attention: nn.Module | None, read: Read | None = None) -> Generator[list[Tensor], None, None]:
    """The first row's attention (b, n) over all rows, averaged over heads, once the block has run; None: none."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        rows = args[0] if args else given["hidden_states"]
        query, key, scale = (read or queries_keys)(module, rows, given.get("rope"))
        found.append(first_row(query, key, scale, given.get("attn_mask")))

    hook = None if attention is None else attention.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield found
    finally:
        if hook is not None:
            hook.remove()


def first_row(query: Tensor, key: Tensor, scale: float, added: Tensor | None) -> Float[Tensor, "b n"]:
    """The first query's softmax over all keys, in fp32, averaged over heads."""
    logits = query[:, :, :1].float() @ key.float().transpose(2, 3) * scale
    if added is not None:
        logits = logits + added[:, :, :1].float()
    return logits.softmax(dim=-1).mean(dim=1)[:, 0]


def queries_keys(attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
    """Of torch's attention, timm's, and that of timm's EVA models.

    Raises:
        TypeError: for any other.
    """
    from timm.layers.attention import Attention
    from timm.models.eva import EvaAttention

    if isinstance(attention, nn.MultiheadAttention):
        width, bias = attention.embed_dim, attention.in_proj_bias
        both = functional.linear(
            rows, attention.in_proj_weight[: 2 * width], None if bias is None else bias[: 2 * width]
        )
        query, key = both.unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, query.shape[-1] ** -0.5
    if isinstance(attention, Attention):
        query, key, _ = attention.qkv(rows).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return attention.q_norm(query), attention.k_norm(key), attention.scale
    if isinstance(attention, EvaAttention):
        return _eva(attention, rows, rope)
    raise TypeError(f"{type(attention).__name__} is no attention that can be read")


def readable(attention: object) -> bool:
    """Whether `queries_keys` can read it."""
    from timm.layers.attention import Attention
    from timm.models.eva import EvaAttention

    return isinstance(attention, (nn.MultiheadAttention, Attention, EvaAttention))


def _eva(attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
    """Biases of its own, and rotary positions for all but the prefix."""
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    heads, prefix = attention.num_heads, attention.num_prefix_tokens
    if attention.qkv is None:
        found = [side(rows).unflatten(2, (heads, -1)).transpose(1, 2) for side in (attention.q_proj, attention.k_proj)]
    else:
        joint = attention.qkv(rows)
        if attention.q_bias is not None:
            joint = joint + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        found = list(joint.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)[:2].unbind(0))
    query, key = attention.q_norm(found[0]), attention.k_norm(found[1])
    if rope is not None:
        half = bool(getattr(attention, "rotate_half", False))  # timm's older releases have no such field
        query, key = (
            torch.cat([side[:, :, :prefix], apply_rot_embed_cat(side[:, :, prefix:], rope, half=half)], dim=2)
            for side in (query, key)
        )
    return query, key, attention.scale
