"""The words of a text themselves: masked language modelling (BEiT-3, arXiv:2208.10442, sec. 2.2)."""

from __future__ import annotations

from typing import Annotated, Literal, final

from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from onestage.ops import select
from onestage.roles import TargetMaker
from onestage.spec import spec
from onestage.targets.rows import RowsWanted
from onestage.types import Target, Tokens, View, Wanted


@final
@spec
class Spelled:
    """The number of each hidden word among as many as there are."""

    vocabulary: Annotated[int, Field(ge=2)] = 49408
    """Of the tokenizer: CLIP's."""
    kind: Literal["words"] = "words"

    @property
    def rows(self) -> RowsWanted:
        """Words that are shown explain themselves."""
        return "hidden"

    def build(self) -> SpelledTarget:
        """The target for words of any context."""
        return SpelledTarget(self)


@final
class SpelledTarget(TargetMaker):
    """Rows of one value, the word's number."""

    def __init__(self, wanted: Spelled) -> None:
        super().__init__()
        self.width = wanted.vocabulary

    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target:
        """The wanted words, of rows that hold the number of every word."""
        assert isinstance(source, Tokens), "words come as rows of their numbers"
        return Target(select(source, wanted.cell), None, None)

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""
