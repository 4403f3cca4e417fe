"""A run's own category head: the predictor, table and temperature of a term whose target is a table.

Read without any fine-tuning it is the classifier that was trained (M3I, arXiv:2211.09807, section 4, where a
pre-trained model is judged on ImageNet directly).
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from onestage.encoders import ProjectorSpec
from onestage.likelihood import LikelihoodSpec
from onestage.likelihood.tempered import Tempered
from onestage.predictors import PredictorSpec
from onestage.roles import CategoryHead, Predictor, Projector
from onestage.spec import spec
from onestage.targets.table import TableTarget
from onestage.types import POOLED, Grid, Tokens, Wanted


@final
@spec
class Through:
    """A projector of a run, by its name among the run's projectors."""

    name: str
    projector: ProjectorSpec


@final
@spec
class CategorySide:
    """How to rebuild the category head of a run; the size of its table is that of the table's weights."""

    term: str
    """The term that trains it."""
    predictor: PredictorSpec
    likelihood: LikelihoodSpec
    through: Through | None = None
    """The projector between the encoder and the head."""


@final
class TableHead(CategoryHead):
    """Scores are the logits of the term's own likelihood: its temperature and normalisation are part of them."""

    def __init__(
        self,
        predictor: Predictor,
        table: TableTarget,
        likelihood: Tempered,
        names: tuple[str, ...],
        projector: Projector | None = None,
    ) -> None:
        super().__init__()
        self.projector = projector
        self.predictor, self.table, self.likelihood = predictor, table, likelihood
        self.names = names

    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        if self.projector is not None:
            tokens = self.projector(tokens)
        cells = tokens.place.cell
        pooled = cells.new_full((cells.shape[0], 1), POOLED)
        guess = self.predictor(tokens, Wanted(pooled, tokens.grid, tokens.geometry))
        return self.likelihood.logits(guess[:, 0], self.table.weight)


def build_head(side: CategorySide, table: tuple[int, int], width: int, grid: Grid, names: tuple[str, ...]) -> TableHead:
    """The head with its first weights.

    Args:
        table: (classes, width) of the table.
        width: of the encoder.
        grid: of the encoder.
    """
    classes, wide = table
    likelihood = side.likelihood.build()
    assert isinstance(likelihood, Tempered), "a table is explained by a likelihood that gives logits"
    projector = None if side.through is None else side.through.projector.build(width)
    width = width if projector is None else projector.width
    return TableHead(side.predictor.build(width, wide, grid), TableTarget(wide, classes), likelihood, names, projector)
