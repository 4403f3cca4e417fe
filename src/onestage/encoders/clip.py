"""The image and text towers of CLIP (arXiv:2103.00020), built by open_clip from a small configuration."""

from __future__ import annotations

from typing import Literal, final

from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from torch import nn

from onestage.encoders.vit import visible_cells
from onestage.layers.normalise import Normalise, Statistics
from onestage.layers.slots import KeepCells
from onestage.ops import place_of
from onestage.roles import Encoder
from onestage.spec import UserError, spec
from onestage.types import POOLED, Grid, Piece, Tokens


@final
@spec
class ClipImage:
    """open_clip's VisionTransformer without its projection: that belongs to the term's predictor."""

    size: int | None = None
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """OpenAI's own weights have `quick_gelu`."""
    normalise: Statistics = "clip"
    kind: Literal["clip_image"] = "clip_image"

    def build(self, modes: frozenset[str]) -> ClipImageEncoder:
        """The encoder.

        Raises:
            UserError: when an input of it asks for mask tokens, which CLIP's tower has no place for.
        """
        if "replace" in modes:
            raise UserError("open_clip's image tower has no place for mask tokens: use mode: drop, or a vit encoder")
        return ClipImageEncoder(self)


@final
class ClipImageEncoder(Encoder):
    """Rows after `ln_post`; the class token is the pooled row."""

    def __init__(self, wanted: ClipImage) -> None:
        super().__init__()
        self.size = wanted.size or 224
        self.width = wanted.width
        self.tower = VisionTransformer(
            image_size=self.size,
            patch_size=wanted.patch,
            width=wanted.width,
            layers=wanted.depth,
            heads=wanted.heads,
            mlp_ratio=wanted.mlp_ratio,
            act_layer=QuickGELU if wanted.activation == "quick_gelu" else nn.GELU,
            output_tokens=True,
        )
        self.tower.proj = None
        self.grid: Grid = self.tower.grid_size
        self.keep = KeepCells(1, "rows")
        self.tower.patch_dropout = self.keep  # pyright: ignore[reportAttributeAccessIssue] - any module fits
        self.normalise = Normalise(wanted.normalise)

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        (piece,) = parts.values()
        view = piece.view
        assert view is not None, "an image encoder is given a view"
        if piece.owner is not None:
            raise UserError(
                "open_clip's image tower cannot keep mixed images apart: use attention: all, or a vit encoder"
            )
        cells = visible_cells(piece, self.grid, view.pixels)
        self.keep.cells = cells if piece.mode == "drop" else None
        try:
            pooled, rows = self.tower(self.normalise(view.pixels))
        finally:
            self.keep.cells = None
        return Tokens(rows, pooled, place_of(cells), self.grid, view.geometry)

    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block."""
        return self.tower.ln_post


@final
@spec
class ClipText:
    """open_clip's text transformer with its projection into a joint space of `joint` dimensions."""

    joint: int = 512
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0
    context: int = 77
    vocabulary: int = 49408
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    attention: Literal["earlier", "all"] = "earlier"
    """What a word sees: the words before it (CLIP), or all (SigLIP)."""
    pool: Literal["end", "last"] = "end"
    """The state of the end token, or of the last place of the context (SigLIP)."""
    kind: Literal["clip_text"] = "clip_text"

    def build(self, modes: frozenset[str]) -> ClipTextEncoder:
        """The encoder; `modes` concern images only."""
        return ClipTextEncoder(self)


@final
class ClipTextEncoder(Encoder):
    """One row per text: the projected state of its end token."""

    def __init__(self, wanted: ClipText) -> None:
        super().__init__()
        self.width, self.size = wanted.joint, 0
        self.grid: Grid = (1, 1)
        self.tower = TextTransformer(
            context_length=wanted.context,
            vocab_size=wanted.vocabulary,
            width=wanted.width,
            heads=wanted.heads,
            layers=wanted.depth,
            mlp_ratio=wanted.mlp_ratio,
            output_dim=wanted.joint,
            no_causal_mask=wanted.attention == "all",
            pool_type="argmax" if wanted.pool == "end" else "last",
            act_layer=QuickGELU if wanted.activation == "quick_gelu" else nn.GELU,
        )

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        (piece,) = parts.values()
        assert piece.words is not None, "a text encoder is given words"
        pooled = self.tower(piece.words.ids)
        place = place_of(piece.words.ids.new_full((pooled.shape[0], 1), POOLED), modality=1)
        return Tokens(pooled.unsqueeze(1), pooled, place, self.grid, None)

    def last_norm(self) -> nn.Module | None:
        """None: outputs of its blocks are not given."""
        return None
