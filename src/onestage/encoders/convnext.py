"""timm's ConvNeXt (arXiv:2201.03545) and ConvNeXt V2 (arXiv:2301.00808) as encoders that can replace given cells.

A cell is a place of the last stage, 32 pixels wide. A hidden cell's 8 x 8 patches of 4 pixels become the mask token
behind the stem, as SimMIM does in a Swin (arXiv:2111.09886, sec. 3.2); ConvNeXt V2 itself is pre-trained by sparse
convolutions, which are not here. A stem whose convolutions overlap would show hidden pixels to their neighbours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.encoders.swin import CELL
from onestage.layers.normalise import Normalise, Statistics
from onestage.layers.slots import MaskToken, masked
from onestage.ops import place_of
from onestage.roles import Encoder
from onestage.spec import UserError, spec
from onestage.types import Grid, Piece, Tokens

PATCH = 4
"""Pixels of a patch of the stem."""
Four = tuple[int, int, int, int]


@final
@spec
class ConvNext:
    """A ConvNeXt of timm; fields left empty keep the architecture's own numbers."""

    arch: str = "convnext_base"
    """timm's name of the architecture: `convnext_*` or `convnextv2_*`."""
    size: Annotated[int, Field(ge=CELL)] | None = None
    """Side of the image in pixels, a multiple of 32."""
    widths: Four | None = None
    """Of the four stages."""
    depths: Four | None = None
    """Blocks of the four stages."""
    drop_path: float = 0.0
    layer_scale: float | None = None
    normalise: Statistics = "imagenet"
    kind: Literal["convnext"] = "convnext"

    def build(self, modes: frozenset[str]) -> ConvNextEncoder:
        """The encoder, with a mask token only where an input of it asks for `replace`.

        Raises:
            UserError: for an architecture that timm lacks, or when an input of it drops cells.
        """
        if "drop" in modes:
            raise UserError("a ConvNeXt convolves whole maps: use mode: replace, or a vit encoder")
        return ConvNextEncoder(self, _backbone(self), modes)


def _backbone(wanted: ConvNext) -> Any:
    import timm
    from timm.models import is_model_in_modules

    if wanted.arch not in timm.list_models() or not is_model_in_modules(wanted.arch, {"convnext"}):
        raise UserError(f"{wanted.arch} is no ConvNeXt of timm; for example convnext_base or convnextv2_base")
    names = {"dims": wanted.widths, "depths": wanted.depths, "ls_init_value": wanted.layer_scale}
    options = {name: value for name, value in names.items() if value is not None}
    try:
        made: Any = timm.create_model(wanted.arch, num_classes=0, drop_path_rate=wanted.drop_path, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot build {wanted.arch} with {options}: {error}") from None
    if made.stem[0].kernel_size != (PATCH, PATCH) or not isinstance(made.norm_pre, nn.Identity):
        raise UserError(f"{wanted.arch}: its stem overlaps, or its norm comes first; use one without _ols and _hnf")
    return made


@final
class ConvNextEncoder(Encoder):
    """Rows of the last stage after the final norm; the norm of their mean is the pooled row."""

    def __init__(self, wanted: ConvNext, backbone: Any, modes: frozenset[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.width, self.size = int(backbone.num_features), wanted.size or 224
        if self.size % CELL:
            raise UserError(f"a ConvNeXt's cells of {CELL} pixels do not fill images of {self.size} pixels")
        self.grid: Grid = (self.size // CELL, self.size // CELL)
        self.normalise = Normalise(wanted.normalise)
        self.mask = MaskToken(int(backbone.stem[0].out_channels)) if "replace" in modes else None
        if self.mask is not None:
            backbone.stem.register_forward_hook(self._masked)

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        (piece,) = parts.values()
        view = piece.view
        assert view is not None, "an image encoder is given a view"
        if piece.owner is not None:
            raise UserError("a ConvNeXt cannot keep mixed images apart: use attention: all, or a vit encoder")
        with masked(self.mask, piece.hidden, self.grid, CELL // PATCH):
            maps = self.backbone.forward_features(self.normalise(view.pixels))
        norm = self.backbone.head.norm
        rows, pooled = norm(maps).flatten(2).transpose(1, 2), norm(maps.mean(dim=(2, 3), keepdim=True)).flatten(1)
        cells = torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[0], -1)
        return Tokens(rows, pooled, place_of(cells), self.grid, view.geometry)

    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block."""
        return self.backbone.head.norm

    def _masked(self, stem: nn.Module, args: object, maps: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        """The mask token stands where cells are hidden; channels come first here."""
        assert self.mask is not None, "hooked where there is one"
        return self.mask(stem, args, maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
