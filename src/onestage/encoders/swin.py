"""timm's Swin (arXiv:2103.14030) and Swin V2 (arXiv:2111.09883) as encoders that can replace given cells.

A cell is a place of the last stage, 32 pixels wide. A hidden cell's 8 x 8 patches of 4 pixels become the mask token
after the norm of the patch embedding, as in SimMIM (arXiv:2111.09886, sec. 3.2).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import nn

from onestage.layers.normalise import Normalise, Statistics
from onestage.layers.slots import MaskToken, masked
from onestage.ops import place_of
from onestage.roles import Encoder
from onestage.spec import UserError, spec
from onestage.types import Grid, Piece, Tokens

CELL = 32
"""Pixels of a cell: patches of 4, halved three times."""


@final
@spec
class Swin:
    """A Swin or Swin V2 of timm; fields left empty keep the architecture's own numbers."""

    arch: str = "swin_base_patch4_window7_224"
    """timm's name of the architecture: `swin_*` or `swinv2_*`."""
    size: Annotated[int, Field(ge=CELL)] | None = None
    """Side of the image in pixels, a multiple of 32."""
    window: Annotated[int, Field(ge=1)] | None = None
    """Side of a window of attention in places; the last stages have smaller ones where their maps are smaller."""
    width: Annotated[int, Field(ge=1)] | None = None
    """Of the first stage; each of the three others has twice that of the one before."""
    depths: tuple[int, int, int, int] | None = None
    """Blocks of the four stages."""
    heads: tuple[int, int, int, int] | None = None
    drop_path: float = 0.0
    normalise: Statistics = "imagenet"
    kind: Literal["swin"] = "swin"

    def build(self, modes: frozenset[str]) -> SwinEncoder:
        """The encoder, with a mask token only where an input of it asks for `replace`.

        Raises:
            UserError: for an architecture that timm lacks, or when an input of it drops cells.
        """
        if "drop" in modes:
            raise UserError("a Swin's windows need every place of its maps: use mode: replace, or a vit encoder")
        return SwinEncoder(self, _backbone(self), modes)


def _backbone(wanted: Swin) -> Any:
    import timm
    from timm.models import is_model_in_modules

    if wanted.arch not in timm.list_models() or not is_model_in_modules(
        wanted.arch, {"swin_transformer", "swin_transformer_v2"}
    ):
        raise UserError(f"{wanted.arch} is no Swin of timm; for example swin_base_patch4_window7_224")
    names = {
        "img_size": wanted.size,
        "window_size": wanted.window,
        "embed_dim": wanted.width,
        "depths": wanted.depths,
        "num_heads": wanted.heads,
    }
    options = {name: value for name, value in names.items() if value is not None}
    try:
        return timm.create_model(wanted.arch, num_classes=0, drop_path_rate=wanted.drop_path, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot build {wanted.arch} with {options}: {error}") from None


@final
class SwinEncoder(Encoder):
    """Rows of the last stage after the final norm; their mean is the pooled row."""

    def __init__(self, wanted: Swin, backbone: Any, modes: frozenset[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = int(backbone.num_features)
        self.size = int(backbone.patch_embed.img_size[0])
        if self.size % CELL:
            raise UserError(f"a Swin's cells of {CELL} pixels do not fill images of {self.size} pixels")
        self.grid: Grid = (self.size // CELL, self.size // CELL)
        self.normalise = Normalise(wanted.normalise)
        self.mask = MaskToken(int(backbone.embed_dim)) if "replace" in modes else None
        if self.mask is not None:
            backbone.patch_embed.register_forward_hook(self.mask)

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        (piece,) = parts.values()
        view = piece.view
        assert view is not None, "an image encoder is given a view"
        if piece.owner is not None:
            raise UserError("a Swin cannot keep mixed images apart: use attention: all, or a vit encoder")
        patches = self.backbone.patch_embed.grid_size[0] // self.grid[0]
        with masked(self.mask, piece.hidden, self.grid, patches):
            maps = self.backbone.forward_features(self.normalise(view.pixels))
        rows = maps.flatten(1, 2)
        cells = torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[0], -1)
        return Tokens(rows, rows.mean(dim=1), place_of(cells), self.grid, view.geometry)

    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block."""
        return self.backbone.norm
