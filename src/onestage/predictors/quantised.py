"""VQ-KD's bottleneck and decoder (BEiT v2, arXiv:2208.06366, sec. 3.1; microsoft/unilm, beit2).

The encoder's rows pass through linear-tanh-linear to few values of unit length, become codes, and a small ViT over the
whole grid guesses the teacher's rows from codes alone. The commitment, beta times the mean squared distance of rows
from their codes, is the term's own cost beside its likelihood.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from onestage.layers.blocks import check_widths, transformer_blocks, xavier
from onestage.layers.codebook import CodeBook
from onestage.layers.normalise import unit
from onestage.ops import gather_rows, select, sincos_2d
from onestage.predictors.reach import Reach
from onestage.roles import Committing
from onestage.spec import UserError, spec
from onestage.types import POOLED, Grid, Tokens, Wanted

Size = Annotated[int, Field(ge=1)]


@final
@spec
class Quantised:
    """A code for every cell, and a decoder of codes."""

    codes: Annotated[int, Field(ge=2)] = 8192
    values: Annotated[int, Field(ge=2)] = 32
    """Of a code."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """How slowly codes move."""
    commitment: Annotated[float, Field(ge=0)] = 1.0
    """beta."""
    width: Annotated[int, Field(ge=4)] = 768
    depth: Size = 1
    """Blocks of the decoder; the released tokenizers have 1 or 3."""
    heads: Size = 12
    kind: Literal["quantised"] = "quantised"

    def __post_init__(self) -> None:
        check_widths(self.width, self.heads)

    @property
    def reaches(self) -> Reach:
        """Which cells it can guess: it needs the rows of the whole grid."""
        return "rows"

    def build(self, width: int, out: int, grid: Grid) -> QuantisedPredictor:
        """From encoder rows of `width` values on `grid` to target rows of `out` values."""
        return QuantisedPredictor(self, width, out, grid)


@final
class QuantisedPredictor(Committing):
    """The bottleneck is computed in fp32; positions are neither trained nor saved."""

    positions: Tensor

    def __init__(self, wanted: Quantised, width: int, out: int, grid: Grid) -> None:
        super().__init__()
        self.grid, self.commitment = grid, wanted.commitment
        self.narrow = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, wanted.values))
        self.widen = nn.Linear(wanted.values, wanted.width)
        self.register_buffer("positions", sincos_2d(wanted.width, grid), persistent=False)
        self.blocks = transformer_blocks(wanted.width, wanted.depth, wanted.heads, 4.0)
        self.norm = nn.LayerNorm(wanted.width, eps=1e-6)
        self.head = nn.Sequential(nn.Linear(wanted.width, wanted.width), nn.Tanh(), nn.Linear(wanted.width, out))
        self.apply(xavier)
        self.book = CodeBook(wanted.codes, wanted.values, wanted.decay)
        self._cost: Tensor | None = None

    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]:
        """The guess at every wanted cell, from the codes of all; `POOLED` asks for the mean of all guesses.

        Raises:
            UserError: when the encoder did not return the whole grid.
        """
        rows = self._bottleneck(tokens)
        codes = self.book(rows)
        self._cost = self.commitment * (rows - codes.detach()).square().mean(dim=-1)
        guesses = self.head(self.norm(self.blocks(self.widen(codes) + self.positions)))
        found = gather_rows(guesses, wanted.cell.clamp_min(0))
        return torch.where((wanted.cell == POOLED).unsqueeze(-1), guesses.mean(dim=1, keepdim=True), found)

    def code_of(self, tokens: Tokens) -> Int[Tensor, "b g"]:
        """The number of every cell's code."""
        return self.book.assign(self._bottleneck(tokens))

    def cost(self) -> Float[Tensor, "b g"]:
        """The commitment of every cell of the last guess."""
        assert self._cost is not None, "a cost is asked for after a guess"
        cost, self._cost = self._cost, None
        return cost

    def perplexity(self) -> Float[Tensor, ""]:
        """Of the code book."""
        return self.book.perplexity()

    def after_step(self) -> None:
        """Commit what the step chose."""
        self.book.after_step()

    def after_skip(self) -> None:
        """Forget it."""
        self.book.after_skip()

    def _bottleneck(self, tokens: Tokens) -> Float[Tensor, "b g k"]:
        count = self.grid[0] * self.grid[1]
        if tokens.grid != self.grid or tokens.rows.shape[1] != count:
            raise UserError(
                f"a quantised predictor needs the rows of all {count} cells, but was given {tokens.rows.shape[1]}; use "
                "an input that drops nothing"
            )
        cells = torch.arange(count, device=tokens.rows.device).expand(tokens.rows.shape[0], -1)
        with torch.autocast(tokens.rows.device.type, enabled=False):
            return unit(self.narrow(select(tokens, cells).float()))
