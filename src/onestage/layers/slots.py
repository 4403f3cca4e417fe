"""What goes into the slots that timm and open_clip leave open: given cells to keep, and mask tokens.

Dropping follows MAE (arXiv:2111.06377): positions are added first, then hidden tokens leave the sequence. Replacing
follows BEiT (arXiv:2106.08254): a learned vector takes the patch embedding's place before positions are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from onestage.ops import gather_rows
from onestage.types import Grid

Answer = Literal["rows", "rows and cells"]


@final
class KeepCells(nn.Module):
    """Fills a `patch_drop` slot: keeps the prefix tokens and the cells set in `cells` (None keeps all).

    timm's `Eva` wants the kept cells too, to gather its rotary table; `VisionTransformer` wants the rows alone.
    """

    cells: Int[Tensor, "b n"] | None

    def __init__(self, prefix: int, answer: Answer) -> None:
        super().__init__()
        self.prefix = prefix
        self.answer = answer
        self.cells = None

    def forward(self, rows: Float[Tensor, "b t d"]) -> Tensor | tuple[Tensor, Tensor | None]:
        if self.cells is not None:
            kept = gather_rows(rows[:, self.prefix :], self.cells)
            rows = torch.cat([rows[:, : self.prefix], kept], dim=1)
        return rows if self.answer == "rows" else (rows, self.cells)


@final
class MaskToken(nn.Module):
    """A forward hook for a patch embedding: the learned token stands where `hidden` says (None changes nothing)."""

    hidden: Bool[Tensor, "b *g"] | None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.hidden = None

    def forward(self, module: nn.Module, args: object, embedded: Float[Tensor, "b *g d"]) -> Float[Tensor, "b *g d"]:
        if self.hidden is None:
            return embedded
        return torch.where(self.hidden.unsqueeze(-1), self.token.to(embedded.dtype), embedded)


@contextmanager
def masked(mask: MaskToken | None, hidden: Bool[Tensor, "b g"] | None, grid: Grid, patches: int) -> Iterator[None]:
    """While it is open, the token stands on a map of patches, of which so many a side make a cell of `grid`; nothing
    changes where there is no token, or nothing is hidden."""
    if mask is None or hidden is None:
        yield
        return
    mask.hidden = hidden.unflatten(1, grid).repeat_interleave(patches, 1).repeat_interleave(patches, 2)
    try:
        yield
    finally:
        mask.hidden = None


def slowed(share: float, module: nn.Module, args: object, embedded: Float[Tensor, "b g d"]) -> Float[Tensor, "b g d"]:
    """A forward hook for a patch embedding, once its share is given: the same rows with that share of the gradient."""
    return share * embedded + (1 - share) * embedded.detach()


@contextmanager
def other_grid(backbone: Any, grid: Grid | None) -> Iterator[None]:
    """While it is open, a timm VisionTransformer takes images of `grid` (None: its own): its patch embedding leaves its
    rows on that grid, and the positions are resampled to it bicubically."""
    if grid is None:
        yield
        return
    embed, strict = backbone.patch_embed, getattr(backbone.patch_embed, "strict_img_size", False)
    hook = embed.register_forward_hook(lambda module, args, rows: rows.unflatten(1, grid))
    backbone.dynamic_img_size, embed.strict_img_size = True, False
    try:
        yield
    finally:
        backbone.dynamic_img_size, embed.strict_img_size = False, strict
        hook.remove()
