"""Teachers that see every view they are asked about: without gradients, in a precision and portions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from onestage.objective import Ask
from onestage.roles import Space
from onestage.teachers import AnyTeacher
from onestage.teachers.serving.spec import Serving
from onestage.teachers.text import reader
from onestage.types import Also, Images, Layer, Place, Tokens, Words

Forward = Callable[[Images, Space, Also], Tokens]


@final
class Portions:
    """Frozen teachers that answer for images and for words.

    Args:
        precision: of a step; the recipe may have another one for teachers.
    """

    def __init__(
        self, teachers: Mapping[str, AnyTeacher], serving: Serving, precision: str, device: torch.device
    ) -> None:
        self.teachers, self.device, self.most = teachers, device, serving.micro_batch
        self.bf16 = (serving.precision or precision) == "bf16"
        self.compiled = serving.compile == "auto" and device.type == "cuda"
        self._forward: dict[str, Forward] = {
            name: torch.compile(teacher.tokens, dynamic=False) if self.compiled else teacher.tokens
            for name, teacher in teachers.items()
        }

    @torch.no_grad()
    def tokens(self, ask: Ask, pixels: Images) -> Tokens:
        """Tokens of images on the device."""
        most = self.most or pixels.shape[0]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            made = [self._portion(ask, portion, most) for portion in pixels.split(most)]
        return made[0] if len(made) == 1 else _joined(made)

    @torch.no_grad()
    def words(self, ask: Ask, words: Words) -> Tokens:
        """A row for every word, of words on the device.

        Raises:
            UserError: when the teacher does not read these words.
        """
        teacher = self.teachers[ask.encoder]
        tower = reader(teacher.reference, teacher.text_tower(), words.ids.shape[1])
        most = self.most or words.ids.shape[0]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            portions = zip(words.ids.split(most), words.text_id.split(most), strict=True)
            made = [tower.words(Words(*portion)) for portion in portions]
        return made[0] if len(made) == 1 else _joined(made)

    def _portion(self, ask: Ask, pixels: Images, most: int) -> Tokens:
        missing = most - pixels.shape[0]
        if not (self.compiled and missing):  # compiled, each other size would be compiled anew
            return self._forward[ask.encoder](pixels, ask.space, ask.also)
        filled = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        return each(self._forward[ask.encoder](filled, ask.space, ask.also), lambda tensor: tensor[:-missing])


def each(tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Tokens:
    """Tokens whose tensors are all changed alike; their geometry is left to whoever knows the view."""
    rows, pooled, place = change(tokens.rows), change(tokens.pooled), Place(*map(change, tokens.place))
    layers = tuple(Layer(*map(change, layer)) for layer in tokens.layers)
    attention = None if tokens.attention is None else change(tokens.attention)
    return Tokens(rows, pooled, place, tokens.grid, geometry=None, layers=layers, attention=attention)


def _joined(made: list[Tokens]) -> Tokens:
    place = Place(*(torch.cat(parts) for parts in zip(*(one.place for one in made), strict=True)))
    rows, pooled = torch.cat([one.rows for one in made]), torch.cat([one.pooled for one in made])
    blocks = zip(*(one.layers for one in made), strict=True)
    layers = tuple(Layer(*map(torch.cat, zip(*block, strict=True))) for block in blocks)
    looks = [one.attention for one in made if one.attention is not None]
    attention = torch.cat(looks) if looks else None
    return Tokens(rows, pooled, place, made[0].grid, geometry=None, layers=layers, attention=attention)
