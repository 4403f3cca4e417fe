"""Hiding words of a text: a share of its own words, however long it is (BEiT-3, arXiv:2208.10442, sec. 2.2).

Which words there are is known when texts are numbered, so the loader draws one number for each place of a context and
the step hides the words whose numbers are the smallest. The first and the last of a text, its start and its end, stay.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from onestage.ops import is_word
from onestage.roles import HideText
from onestage.spec import UserError, spec
from onestage.types import Grid

LONGEST = 512
"""Places of a context for which numbers are drawn."""


@final
@spec
class SomeWords(HideText):
    """`round(ratio * words)` words are hidden, at least one where there is one."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.15
    kind: Literal["words"] = "words"

    def count(self, grid: Grid) -> int:
        """How many words are hidden at most: of a text that fills the context, `grid[1]` places."""
        return max(1, math.floor(self.ratio * (grid[0] * grid[1] - 2) + 0.5))

    def noise(self, rng: np.random.Generator) -> Float[np.ndarray, " t"]:
        """One number in [0, 1) a place."""
        return rng.random(LONGEST, dtype=np.float32)

    def choose(self, noise: Float[Tensor, "b l"], words: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """True where hidden.

        Raises:
            UserError: when the context is longer than numbers are drawn.
        """
        context = words.shape[1]
        if context > LONGEST:
            raise UserError(f"hide: words: knows contexts of at most {LONGEST} words, not {context}")
        length = is_word(words).sum(dim=1, keepdim=True)
        place = torch.arange(context, device=words.device)
        inner = (place > 0) & (place < length - 1)
        count = (self.ratio * inner.sum(dim=1, keepdim=True) + 0.5).floor().clamp_min(1)
        rank = noise[:, :context].masked_fill(~inner, 2.0).argsort(dim=1, stable=True).argsort(dim=1)
        return inner & (rank < count)
