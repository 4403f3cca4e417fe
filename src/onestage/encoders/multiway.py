"""BEiT-3's multiway transformer (arXiv:2208.10442, sec. 2.1): attention for all, a feed-forward for each modality.

Cells of an image and words of a text stand in one sequence: every block attends over both, then a vision expert maps
cells and a language expert words. With one of them alone it is an encoder of images, or of texts. Norms are placed as
in Magneto (arXiv:2210.06423), inside attention and feed-forward too. Experts for pairs in the last three blocks, which
the paper's figure has, are not in what was released (microsoft/torchscale), and not here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Literal, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from onestage.encoders.initialise import initialise
from onestage.layers.normalise import Normalise, Statistics
from onestage.ops import is_word, place_of
from onestage.roles import Encoder
from onestage.spec import UserError, spec
from onestage.types import Grid, Piece, Place, Tokens

Number = Annotated[int, Field(ge=1)]


@final
@spec
class Multiway:
    """`depth` blocks of `width` values for images of `size` pixels and texts of `context` words."""

    size: int | None = None
    patch: Number = 16
    width: Number = 768
    depth: Number = 12
    heads: Number = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    context: Annotated[int, Field(ge=3)] = 64
    vocabulary: Annotated[int, Field(ge=2)] = 49408
    """Of the tokenizer: CLIP's. BEiT-3 has one of 64,010 pieces."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalise: Statistics = "half"
    kind: Literal["multiway"] = "multiway"

    def build(self, modes: frozenset[str]) -> MultiwayEncoder:
        """The encoder, with mask tokens only where an input of it asks for `replace`.

        Raises:
            UserError: when an input of it drops cells, or heads do not share the width equally.
        """
        if "drop" in modes:
            raise UserError("a multiway encoder reads whole images and texts: use mode: replace, or a vit encoder")
        if self.width % self.heads:
            raise UserError(f"multiway: {self.heads} heads do not share {self.width} values equally; change heads")
        return MultiwayEncoder(self, "replace" in modes)


@final
class MultiwayEncoder(Encoder):
    """Rows after the final norm, cells first; the class token, or a text's first word, is the pooled row."""

    def __init__(self, wanted: Multiway, masks: bool) -> None:
        super().__init__()
        self.size, self.width = wanted.size or 224, wanted.width
        self.grid: Grid = (self.size // wanted.patch, self.size // wanted.patch)
        self.normalise = Normalise(wanted.normalise)
        patches = nn.Conv2d(3, wanted.width, wanted.patch, stride=wanted.patch)
        self.patch_embed = nn.Sequential(OrderedDict(proj=patches))
        self.cls_token = nn.Parameter(torch.empty(1, 1, wanted.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], wanted.width))
        self.words = nn.Embedding(wanted.vocabulary, wanted.width)
        self.word_positions = nn.Parameter(torch.empty(1, wanted.context, wanted.width))
        last = max(wanted.depth - 1, 1)
        self.blocks = nn.ModuleList(_Block(wanted, wanted.drop_path * number / last) for number in range(wanted.depth))
        self.norm = nn.LayerNorm(wanted.width, eps=1e-5)
        initialise(self, "eva02", wanted.depth)
        self.mask = _Masks(wanted.width) if masks else None
        for tensor in (self.words.weight, self.word_positions):
            nn.init.trunc_normal_(tensor, std=0.02)

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        image = next((piece for piece in parts.values() if piece.view is not None), None)
        text = next((piece for piece in parts.values() if piece.words is not None), None)
        cells = None if image is None else self._cells(image)
        words = None if text is None else self._words(text)
        rows = torch.cat([one for one in (cells, words) if one is not None], dim=1)
        split = 0 if cells is None else cells.shape[1]
        seen = _seen(text, split) if text is not None else None
        for block in self.blocks:
            rows = block(rows, split, seen)
        rows = self.norm(rows)
        count = rows.shape[1] - split
        found, places = [rows[:, 1:] if split else rows], []
        if split:
            places.append(place_of(torch.arange(split - 1, device=rows.device).expand(len(rows), -1)))
        if count:
            places.append(place_of(torch.arange(count, device=rows.device).expand(len(rows), -1), modality=1))
        place = Place(*(torch.cat(values, dim=1) for values in zip(*places, strict=True)))
        grid = self.grid if split else (1, count)
        geometry = image.view.geometry if image is not None and image.view is not None else None
        return Tokens(found[0], rows[:, 0], place, grid, geometry)

    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block."""
        return self.norm

    def _cells(self, piece: Piece) -> Float[Tensor, "b n d"]:
        assert piece.view is not None, "cells are those of a view"
        rows = self.patch_embed(self.normalise(piece.view.pixels)).flatten(2).transpose(1, 2)
        rows = self._masked(rows, piece, 0)
        return torch.cat([self.cls_token.to(rows.dtype).expand(len(rows), -1, -1), rows], dim=1) + self.pos_embed

    def _words(self, piece: Piece) -> Float[Tensor, "b t d"]:
        assert piece.words is not None, "words are those of a text"
        rows = self._masked(self.words(piece.words.ids), piece, 1)
        if rows.shape[1] > self.word_positions.shape[1]:
            raise UserError(
                f"a multiway encoder of {self.word_positions.shape[1]} words was given {rows.shape[1]}; change context"
            )
        return rows + self.word_positions[:, : rows.shape[1]]

    def _masked(self, rows: Float[Tensor, "b n d"], piece: Piece, kind: int) -> Float[Tensor, "b n d"]:
        if piece.mode != "replace" or piece.hidden is None or self.mask is None:
            return rows
        return torch.where(piece.hidden.unsqueeze(-1), self.mask.token[kind].to(rows.dtype), rows)


@final
class _Masks(nn.Module):
    """The mask tokens of cells and of words, which only training needs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(2, width))
        nn.init.trunc_normal_(self.token, std=0.02)


def _seen(text: Piece, cells: int) -> Bool[Tensor, "b 1 1 n"]:
    """Which rows attention may read: all but the places behind a text's end."""
    assert text.words is not None, "a text has words"
    real = is_word(text.words.ids)
    return torch.cat([real.new_ones(len(real), cells), real], dim=1)[:, None, None]


@final
class _Expert(nn.Module):
    """One modality's norm and feed-forward, with a norm inside."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        parts = {"fc1": nn.Linear(width, inside), "act": nn.GELU(), "norm": nn.LayerNorm(inside, eps=1e-5)}
        self.mlp = nn.Sequential(OrderedDict(parts, fc2=nn.Linear(inside, width)))

    def forward(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.mlp(self.norm(rows))


@final
class _Attention(nn.Module):
    """Shared by the modalities, with a norm before its last map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, rows: Float[Tensor, "b n d"], seen: Bool[Tensor, "b 1 1 n"] | None) -> Float[Tensor, "b n d"]:
        query, key, value = (
            one(rows).unflatten(2, (self.heads, -1)).transpose(1, 2) for one in (self.q_proj, self.k_proj, self.v_proj)
        )
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.proj(self.norm(read.transpose(1, 2).flatten(2)))


@final
class _Block(nn.Module):
    def __init__(self, wanted: Multiway, drop: float) -> None:
        from timm.layers.drop import DropPath

        super().__init__()
        inside = int(wanted.width * wanted.mlp_ratio)
        self.norm = nn.LayerNorm(wanted.width, eps=1e-5)
        self.attn = _Attention(wanted.width, wanted.heads)
        self.image, self.text = _Expert(wanted.width, inside), _Expert(wanted.width, inside)
        self.drop = DropPath(drop)

    def forward(
        self, rows: Float[Tensor, "b n d"], split: int, seen: Bool[Tensor, "b 1 1 n"] | None
    ) -> Float[Tensor, "b n d"]:
        rows = rows + self.drop(self.attn(self.norm(rows), seen))
        told = [self.image(rows[:, :split])] if split else []
        if split < rows.shape[1]:
            told.append(self.text(rows[:, split:]))
        return rows + self.drop(torch.cat(told, dim=1))
