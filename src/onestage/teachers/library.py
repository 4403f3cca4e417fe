"""A model of another library as a frozen model: its image tower, its own pixels, and its texts where it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.looks import looks_of
from onestage.layers.normalise import STATISTICS, normalised
from onestage.layers.outputs import outputs_of
from onestage.ops import place_of
from onestage.roles import ALONE, CategoryHead, Space, Teacher
from onestage.spec import UserError
from onestage.teachers.category import scored
from onestage.teachers.resize import Interpolation, to_size, whole
from onestage.teachers.spaces import no_categories, no_codes
from onestage.teachers.text import TextTower, freeze
from onestage.teachers.tower import Pixels, Tower, split
from onestage.types import Also, Images, Layer, Tokens


@final
class LibraryTeacher(Teacher):
    """A frozen model with its own size, interpolation and normalisation.

    Args:
        read_texts: opens the text tower and its tokenizer when a text is first asked for; None where there is none.
        scale: exp of the logit scale.
        categories: its classifier, where it has one.
    """

    def __init__(
        self,
        reference: str,
        tower: Tower,
        pixels: Pixels,
        read_texts: Callable[[], TextTower] | None,
        scale: float,
        licence: str,
        device: torch.device,
        categories: CategoryHead | None = None,
    ) -> None:
        self.reference, self.licence, self.scale = reference, licence, scale
        self.tower = tower.requires_grad_(False).eval().to(device)
        self.grid, self.size = tower.grid, pixels.size
        self.pixels, self.device = pixels, device
        self.interpolation: Interpolation = pixels.interpolation
        self.mean = torch.tensor(pixels.mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(pixels.std, device=device).view(3, 1, 1)
        self.statistics = _statistics(pixels)
        self.has_joint = tower.joint is not None
        self.has_text = read_texts is not None
        self.templates: tuple[str, ...] = ()
        self._read_texts = read_texts
        self._texts: TextTower | None = None
        self.categories = None if categories is None else freeze(categories, device)

    def parts(self) -> tuple[nn.Module, ...]:
        beside = (*(self._texts.parts() if self._texts is not None else ()), self.categories)
        return (self.tower, *(part for part in beside if part is not None))

    def width(self, space: Space) -> int:
        if space == "raw":
            return self.tower.width
        if space == "codes":
            no_codes(self.reference)
        if space == "categories":
            return no_categories(self.reference) if self.categories is None else self.categories.count
        if self.tower.joint is None:
            raise UserError(
                f"{self.reference}: it cannot be asked for rows in a space shared with texts: {self.tower.lack}. "
                "Use space: raw, or a model pooled by its class token (CLIP, EVA-CLIP) or by attention (SigLIP)."
            )
        return self.tower.joint

    @torch.no_grad()
    def tokens(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        return self.look(pixels, space, also)

    def look(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        """The same tokens, with gradients for the pixels."""
        self.width(space)
        if space == "categories":
            return scored(self.look(pixels, "raw"), self.categories)
        images = normalised(to_size(pixels, self.size, self.interpolation), self.mean, self.std)
        tower = self.tower
        last = tower.attention() if also.attention else None
        with outputs_of(tower.blocks(), also.layers) as outputs, looks_of(last, tower.query_key) as looks:
            rows = tower.raw(images) if space == "raw" else tower.projected(images)
        cells = torch.arange(rows.patches.shape[1], device=pixels.device).expand(pixels.shape[0], -1)
        tokens = Tokens(rows.patches, rows.pooled, place_of(cells), self.grid, whole(pixels))
        made = [split(output, tower.prefix) if space == "raw" else tower.lifted(output) for output in outputs]
        attention = looks[0][:, tower.prefix :] if looks else None
        return tokens._replace(layers=tuple(Layer(one.patches, one.pooled) for one in made), attention=attention)

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        tower = self.text_tower()
        if tower is None:
            raise UserError(f"{self.reference}: it has no text tower, so texts cannot be compared with images")
        return tower.embed(texts)

    def beside(
        self, tower: Tower, read_texts: Callable[[], TextTower], scale: float, templates: tuple[str, ...]
    ) -> LibraryTeacher:
        """The same pixels read by this tower, beside other texts."""
        made = LibraryTeacher(self.reference, tower, self.pixels, read_texts, scale, self.licence, self.device)
        made.templates = templates
        return made

    def text_tower(self) -> TextTower | None:
        """Its text tower, opened when first asked for, as a run copies it.

        Raises:
            UserError: when its tokenizer cannot be had, saying what is missing.
        """
        if self._texts is None and self._read_texts is not None:
            self._texts = self._read_texts()
        return self._texts


def _statistics(pixels: Pixels) -> str:
    """The name of these statistics, or `own`."""
    for name, known in STATISTICS.items():
        if all(abs(a - b) < 1e-6 for a, b in zip([*pixels.mean, *pixels.std], [*known[0], *known[1]], strict=True)):
            return name
    return "own"
