"""Hiding what a teacher does not look at: MILAN (arXiv:2208.06049, sec. 3.3), MaskAlign and UMT (arXiv:2303.16058).

The cells that stay are drawn without replacement with probabilities w in proportion to the attention of the teacher's
class token in its last block. The n largest of log w + g, with g from Gumbel's distribution, are such a draw
(arXiv:1903.06059, sec. 2), and so one number a cell, drawn by the loader, decides: a sample's draw depends neither on
the batch it is in nor on the process that makes it.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from onestage.roles import HideLater
from onestage.spec import UserError, spec
from onestage.types import Grid, Tokens

SMALLEST = 1e-8
"""Added to weights and noise, whose logarithms are taken."""


@final
@spec
class Attentive(HideLater):
    """`int(cells * (1 - ratio))` cells stay, at least one: rather those that the teacher's class token looks at."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.75
    by: str = "teacher"
    """The frozen encoder whose attention it is."""
    kind: Literal["attentive"] = "attentive"

    def count(self, grid: Grid) -> int:
        """How many cells are hidden."""
        cells = grid[0] * grid[1]
        return cells - max(1, int(cells * (1 - self.ratio)))

    def noise(self, rng: np.random.Generator, grid: Grid) -> Float[np.ndarray, " g"]:
        """One number in [0, 1) a cell."""
        return rng.random(grid[0] * grid[1], dtype=np.float32)

    def choose(self, noise: Float[Tensor, "b g"], answer: Tokens, grid: Grid) -> Bool[Tensor, "b g"]:
        """True where hidden.

        Raises:
            UserError: when the teacher gives no attention, or on another grid.
        """
        if answer.attention is None:
            raise UserError(
                f"hide: attentive: '{self.by}' does not say where its class token looks; use a ViT with a class token "
                "(of open_clip, timm, or CLIP of transformers) or a run as the teacher, or another way of hiding"
            )
        if answer.grid != grid:
            raise UserError(
                f"hide: attentive: '{self.by}' looks at {answer.grid[0]} x {answer.grid[1]} cells, but the input has "
                f"{grid[0]} x {grid[1]}; choose the sizes and patches so that they agree"
            )
        gumbel = -torch.log(-torch.log(noise.double().clamp(SMALLEST, 1 - SMALLEST)))
        kept = (
            (answer.attention.double() + SMALLEST).log().add(gumbel).topk(grid[0] * grid[1] - self.count(grid)).indices
        )
        return torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, False)
