"""The image and text towers of CLIP (arXiv:2103.00020), built by open_clip from a small configuration."""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float, Int
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from torch import Tensor, nn

from onestage.encoders.vit import visible_cells
from onestage.layers.normalise import Normalise, Statistics
from onestage.layers.slots import KeepCells
from onestage.ops import gather_rows, place_of, shown
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

    @property
    def reads_beyond(self) -> bool:
        """Whether what stands behind a text's end changes what it says of it."""
        return (self.attention, self.pool) != ("earlier", "end")

    def build(self, modes: frozenset[str]) -> ClipTextEncoder:
        """The encoder. As an input it gives a row for every word, as a target one for the text: its pooled row.

        Raises:
            UserError: when an input of it hides words in a way that the tower has no place for.
        """
        if "replace" in modes:
            raise UserError("CLIP's text tower has no place for mask tokens: use mode: drop, or a multiway encoder")
        if "drop" in modes and self.reads_beyond:
            raise UserError(
                f"a text tower of attention: {self.attention} and pool: {self.pool} reads what stands behind a text's "
                "end, so its words cannot be dropped: use attention: earlier and pool: end"
            )
        return ClipTextEncoder(self, every=bool(modes))


@final
class ClipTextEncoder(Encoder):
    """The projected state of a text's end token, or of each of its words."""

    def __init__(self, wanted: ClipText, every: bool = False) -> None:
        super().__init__()
        self.width, self.size = wanted.joint, 0
        self.every = every
        self.grid: Grid = (1, wanted.context if every else 1)
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
        if self.every:
            return self.words(piece)
        ids = piece.words.ids
        pooled = self._joint(self._end(self._states(self._embedded(ids)), ids))
        place = place_of(ids.new_full((len(ids), 1), POOLED), modality=1)
        return Tokens(pooled.unsqueeze(1), pooled, place, self.grid, None)

    def words(self, piece: Piece) -> Tokens:
        """The row of every place that the piece shows, in the joint space; the pooled row is that of the end.

        Words keep their positions, as the patches of an image do. A text that has fewer words than are shown of the
        longest is filled up with places behind its end, which no word of it sees.
        """
        assert piece.words is not None, "a text encoder is given words"
        ids = piece.words.ids
        context, rows = ids.shape[1], self._embedded(ids)
        cells = torch.arange(context, device=ids.device).expand_as(ids)
        if piece.mode == "drop" and piece.hidden is not None:
            cells = shown(piece.hidden, context - piece.hides)
            ids, rows = ids.gather(1, cells), gather_rows(rows, cells)
        rows = self._joint(self._states(rows))
        return Tokens(rows, self._end(rows, ids), place_of(cells, modality=1), (1, context), None)

    def _embedded(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Words at their positions; a batch of short texts has fewer places than the context."""
        return self.tower.token_embedding(ids) + self.tower.positional_embedding[: ids.shape[1]]

    def _states(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The normed states behind the last block."""
        seen: Tensor | None = self.tower.attn_mask
        count = rows.shape[1]
        rows = self.tower.transformer(rows, attn_mask=None if seen is None else seen[:count, :count])
        return self.tower.ln_final(rows)

    def _joint(self, rows: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        projection = self.tower.text_projection
        assert isinstance(projection, Tensor), "it is built without a bias"
        return rows @ projection

    def _end(self, rows: Float[Tensor, "b n d"], ids: Int[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        """The row of each text's end token, which has the greatest number, or of the last place."""
        return rows[:, -1] if self.tower.pool_type == "last" else gather_rows(rows, ids.argmax(1, keepdim=True))[:, 0]

    def last_norm(self) -> nn.Module | None:
        """None: outputs of its blocks are not given."""
        return None
