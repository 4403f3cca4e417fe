"""The second class token as the pooled row: what DeiT distils into (arXiv:2012.12877, sec. 3).

Both class tokens pass all blocks; true labels are explained from the first, a teacher's answers from the second.
"""

from __future__ import annotations

from typing import Literal, final

from onestage.roles import Projector
from onestage.spec import UserError, spec
from onestage.types import Tokens


@final
@spec
class Second:
    """The second class token of an encoder that has two."""

    kind: Literal["second"] = "second"

    def build(self, width: int) -> SecondProjector:
        """For rows of `width` values."""
        return SecondProjector(width)


@final
class SecondProjector(Projector):
    """Puts it in the place of the first; nothing is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tokens) -> Tokens:
        """The tokens with the other pooled row.

        Raises:
            UserError: when the encoder has one class token.
        """
        if tokens.second is None:
            raise UserError("projector second: the encoder has one class token; set models.student.class_tokens: 2")
        return tokens._replace(pooled=tokens.second)
