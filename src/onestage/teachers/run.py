"""A run of ours as a frozen model: its image encoder, its head into the joint space, and its text tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.encoders import ClipText
from onestage.encoders.vit import VitEncoder
from onestage.predictors import QuantisedPredictor
from onestage.roles import ALONE, CategoryHead, Encoder, Predictor, Projector, Space, Teacher
from onestage.spec import UserError
from onestage.teachers.bundle import BundleSpec, LibraryImage, TextSide, open_text, read_names
from onestage.teachers.category import build_head, fill_head, scored
from onestage.teachers.resize import clip_of, whole
from onestage.teachers.spaces import no_categories, no_codes
from onestage.teachers.stored import Stored, image_weights, stored_run, under
from onestage.teachers.text import TextTower, freeze
from onestage.types import POOLED, Also, Images, Layer, Piece, Tokens, View, Wanted


@final
class RunTeacher(Teacher):
    """A frozen model from a checkpoint of a run."""

    def __init__(
        self,
        reference: str,
        bundle: BundleSpec,
        encoder: Encoder,
        projector: Projector | None,
        head: Predictor | None,
        text: TextTower | None,
        scale: float,
        categories: CategoryHead | None,
        book: QuantisedPredictor | None = None,
    ) -> None:
        self.reference, self.bundle, self.categories = reference, bundle, categories
        self.encoder, self.projector, self.head, self._text = encoder, projector, head, text
        self.grid, self.size, self.frames = encoder.grid, encoder.size, encoder.frames
        self.licence, self.pool = bundle.licence, bundle.pool
        self.scale = scale
        self.book = head if isinstance(head, QuantisedPredictor) else book
        self.codes = 0 if self.book is None else len(self.book.book.codes)
        self.has_text = text is not None
        self.has_joint = bundle.joint is not None
        self.templates = bundle.text.templates if bundle.text else ()
        made = bundle.encoder
        self.statistics = "own" if isinstance(made, (ClipText, LibraryImage)) else made.normalise

    def parts(self) -> tuple[nn.Module, ...]:
        found = (self.encoder, self.projector, self.head, *(self._text.parts() if self._text else ()), self.categories)
        beside = self.book if self.book is not self.head else None
        return tuple(part for part in (*found, beside) if part is not None)

    def width(self, space: Space) -> int:
        if space == "raw":
            return self.encoder.width
        if space == "codes":
            return self.codes or no_codes(self.reference)
        if space == "categories":
            return no_categories(self.reference) if self.categories is None else self.categories.count
        if self.bundle.joint is None:
            raise UserError(
                f"{self.reference}: this run has no space that it shares with texts, so it cannot be asked for joint "
                "tokens. Use space: raw, or a teacher that learned from texts or from a CLIP teacher."
            )
        return self.bundle.joint

    @torch.no_grad()
    def tokens(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        return self.look(pixels, space, also)

    def look(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        """The same tokens, with gradients for the pixels."""
        view = View(clip_of(pixels, self.size, self.frames), whole(pixels))
        tokens = self.encoder({"image": Piece(view=view, layers=also.layers, attention=also.attention)})
        if space == "raw":
            return tokens
        self.width(space)
        if space == "categories":
            return scored(tokens, self.categories)
        if space == "codes":
            assert self.book is not None, "a width of codes comes with a code book"
            codes = self.book.code_of(tokens).unsqueeze(-1).float()
            return tokens._replace(rows=codes, pooled=torch.zeros_like(codes[:, 0]))
        lifted = (self._joint(tokens._replace(rows=one.rows, pooled=one.pooled)) for one in tokens.normed)
        layers = tuple(Layer(one.rows, one.pooled) for one in lifted)
        return self._joint(tokens)._replace(layers=layers)

    def _joint(self, tokens: Tokens) -> Tokens:
        """Rows after the head into the joint space."""
        assert self.head is not None, "a joint width comes with a head"
        if self.projector is not None:
            tokens = self.projector(tokens)
        cells = tokens.place.cell
        pooled = cells.new_full((cells.shape[0], 1), POOLED)
        if isinstance(self.encoder, VitEncoder) and self.projector is None:
            tokens = tokens._replace(rows=self.encoder.alone(tokens.rows))
        rows = self.head(tokens, Wanted(torch.cat([pooled, cells], dim=1), tokens.grid, tokens.geometry))
        return tokens._replace(rows=rows[:, 1:], pooled=rows[:, 0])

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        if self._text is None:
            raise UserError(f"{self.reference}: this run has no text tower, so texts cannot be compared with images")
        return self._text.embed(texts)

    def text_tower(self) -> TextTower | None:
        """Its text tower, as another run copies it."""
        return self._text


def load_run(run: Path, step: str | None, which: str, seed: int | None, device: torch.device) -> RunTeacher:
    """The model of a run.

    Args:
        step: a step number, `best`, or None for the newest checkpoint.
        which: `student` or `ema`.
        seed: draw the image encoder and its heads at random from this seed instead of loading them.

    Raises:
        UserError: when the run holds no such checkpoint or encoder.
    """
    return model_of(f"{run}" + (f"@{step}" if step else ""), stored_run(run, step), which, seed, device)


def model_of(reference: str, stored: Stored, which: str, seed: int | None, device: torch.device) -> RunTeacher:
    """A model in our own layout; the arguments are those of `load_run`."""
    folder, bundle, weights = stored
    if isinstance(bundle.encoder, LibraryImage):
        raise UserError(f"{reference}: its images are read by {bundle.encoder.reference}, which is none of our towers")
    if which == "ema" and bundle.average is None:
        raise UserError(f"{reference}:ema: this run keeps no average of its encoder; use {folder}:student")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        encoder = bundle.encoder.build(frozenset())
        projector = None if bundle.through is None else bundle.through.projector.build(encoder.width)
        head = None
        if bundle.head is not None and bundle.joint is not None:
            width = encoder.width if projector is None else projector.width
            head = bundle.head.build(width, bundle.joint, encoder.grid)
        book = None
        if bundle.book is not None:
            book = bundle.book.predictor.build(encoder.width, bundle.book.out, encoder.grid)
        categories = None
        if bundle.category is not None:
            table = weights[f"targets.{bundle.category.term}.weight"].shape
            categories = build_head(
                bundle.category, (table[0], table[1]), encoder.width, encoder.grid, read_names(folder)
            )
    if seed is None:
        _fill(encoder, image_weights(stored, which))
        if projector is not None and bundle.through is not None:
            _fill(projector, under(weights, f"projectors.trained.{bundle.through.name}."))
        if head is not None:
            _fill(head, under(weights, f"predictors.{bundle.head_of}."))
        if book is not None and bundle.book is not None:
            _fill(book, under(weights, f"predictors.{bundle.book.term}."))
        if categories is not None and bundle.category is not None:
            fill_head(categories, bundle.category, weights)
    text, scale = text_of(stored, bundle.text, device) if bundle.text is not None else (None, 1.0)
    return RunTeacher(
        reference,
        bundle,
        freeze(encoder, device),
        projector and freeze(projector, device),
        head and freeze(head, device),
        text,
        scale,
        categories and freeze(categories, device),
        book and freeze(book, device),
    )


def text_of(stored: Stored, side: TextSide, device: torch.device) -> tuple[TextTower, float]:
    """The text tower of a model and the scale of its logits."""
    own = None
    if side.trained_as is not None:
        own = under(stored.weights, f"encoders.{side.trained_as}.")
    scale = side.scale
    if side.scale_of is not None:
        scale = float(stored.weights[f"likelihoods.{side.scale_of}.log_scale"].exp())
    return open_text(stored.folder, side, own, device), scale


def _fill(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights; a mask token that only training needs is left out."""
    module.load_state_dict({key: value for key, value in weights.items() if key != "mask.token"})
