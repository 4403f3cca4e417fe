"""Teachers that see every view they are asked about: without gradients, in a precision and portions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.objective import Ask
from onestage.roles import Space, Teacher
from onestage.teachers.serving.spec import Serving
from onestage.types import Place, Tokens

Forward = Callable[[Float[Tensor, "b c h w"], Space], Tokens]


@final
class Portions:
    """Frozen teachers that answer for images.

    Args:
        precision: of a step; the recipe may have another one for teachers.
    """

    def __init__(self, teachers: Mapping[str, Teacher], serving: Serving, precision: str, device: torch.device) -> None:
        self.device, self.most = device, serving.micro_batch
        self.bf16 = (serving.precision or precision) == "bf16"
        self.compiled = serving.compile == "auto" and device.type == "cuda"
        self._forward: dict[str, Forward] = {
            name: torch.compile(teacher.tokens, dynamic=False) if self.compiled else teacher.tokens
            for name, teacher in teachers.items()
        }

    @torch.no_grad()
    def tokens(self, ask: Ask, pixels: Float[Tensor, "b c h w"]) -> Tokens:
        """Tokens of images in [0, 1] on the device."""
        most = self.most or pixels.shape[0]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            made = [self._portion(ask, portion, most) for portion in pixels.split(most)]
        return made[0] if len(made) == 1 else _joined(made)

    def _portion(self, ask: Ask, pixels: Float[Tensor, "b c h w"], most: int) -> Tokens:
        missing = most - pixels.shape[0]
        if not (self.compiled and missing):  # compiled, each other size would be compiled anew
            return self._forward[ask.encoder](pixels, ask.space)
        filled = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
        return each(self._forward[ask.encoder](filled, ask.space), lambda tensor: tensor[:-missing])


def each(tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Tokens:
    """Tokens whose tensors are all changed alike; their geometry is left to whoever knows the view."""
    return Tokens(
        change(tokens.rows), change(tokens.pooled), Place(*map(change, tokens.place)), tokens.grid, geometry=None
    )


def _joined(made: list[Tokens]) -> Tokens:
    place = Place(*(torch.cat(parts) for parts in zip(*(one.place for one in made), strict=True)))
    rows, pooled = torch.cat([one.rows for one in made]), torch.cat([one.pooled for one in made])
    return Tokens(rows, pooled, place, made[0].grid, geometry=None)
