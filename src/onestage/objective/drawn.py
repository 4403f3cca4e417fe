"""Pictures that terms draw, as frozen encoders see them (PeCo, arXiv:2111.12710): each is looked at once a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from jaxtyping import Float
from torch import Tensor

from onestage.objective.asks import ask_for
from onestage.objective.declare import Method, Term
from onestage.ops import block_of
from onestage.predictors import Drawn
from onestage.roles import Space
from onestage.spec import UserError
from onestage.targets import Encoded, PixelsTarget
from onestage.types import Also, Tokens

Look = Callable[[Float[Tensor, "b c h w"], Space, Also], Tokens]
"""A frozen encoder's tokens of images in [0, 1], with gradients for the images."""


@final
class Redrawn:
    """What frozen encoders say of pictures that are drawn in one step.

    Args:
        looks: the frozen encoders by their names; None for one that gives no gradients.
    """

    def __init__(self, method: Method, looks: Mapping[str, Look | None]) -> None:
        self.method, self.looks = method, looks
        self._seen: dict[tuple[str, str, str, Space], Tokens] = {}

    def tokens(self, term: Term, guess: Float[Tensor, "b g p"], target: PixelsTarget, whole: Tokens) -> Tokens:
        """The rows of the block that a term explains, on the picture that another term's guess is.

        Args:
            guess: of the other term, all of its cells.
            target: of the other term.
            whole: an answer about the true picture, on the same grid.

        Raises:
            UserError: when the frozen encoder gives no gradients.
        """
        assert isinstance(term.target, Encoded) and isinstance(term.predictor, Drawn), "checked when declared"
        name, space = term.target.encoder, term.target.space
        key = (term.predictor.of, name, term.y, space)
        if key not in self._seen:
            look = self.looks[name]
            if look is None:
                raise UserError(f"predictor drawn: encoder '{name}' gives no gradients; use a run, or a model of timm")
            picture, asked = target.picture(guess), ask_for(self.method, name, term.y, space)
            self._seen[key] = look(picture, space, Also(layers=asked.also.layers))
        found = self._seen[key]._replace(geometry=whole.geometry)
        return block_of(found, term.target.blocks[0]) if term.target.blocks else found
