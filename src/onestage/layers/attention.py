"""Attention as it is fastest on the machine at hand."""

from __future__ import annotations

from torch import cuda, nn


def unfuse_without_gpu(module: nn.Module) -> None:
    """Make every attention of timm's inside `module` plain where there is no GPU.

    torch's fused kernel is about two times slower in bf16 on a CPU.
    """
    from timm.layers.attention import Attention
    from timm.models.eva import EvaAttention

    if cuda.is_available():
        return
    for part in module.modules():
        if isinstance(part, (Attention, EvaAttention)):
            part.fused_attn = False  # pyright: ignore[reportAttributeAccessIssue] - Final only for torch.jit
