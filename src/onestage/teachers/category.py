"""A category head of a frozen model: that of a run, or the classifier of another library's model.

A run's is the predictor, table and temperature of a term whose target is a table. Read without any fine-tuning it is
the classifier that was trained (M3I, arXiv:2211.09807, section 4, where a pre-trained model is judged on ImageNet
directly). Where a second class token learned a teacher's categories too, the probabilities of both heads are averaged
(DeiT, arXiv:2012.12877, section 3: late fusion).
"""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.encoders import ProjectorSpec
from onestage.likelihood import LikelihoodSpec
from onestage.likelihood.tempered import Tempered
from onestage.ops import place_of
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
class TaughtSide:
    """How to rebuild the head that learned a teacher's scores of the same categories."""

    term: str
    predictor: PredictorSpec
    through: Through | None = None


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
    taught: TaughtSide | None = None
    """The head beside it."""


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
        self.names, self.count = names, len(table.weight)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        return self.likelihood.logits(_guess(self.predictor, self.projector, tokens), self.table.weight)


@final
class TaughtHead(CategoryHead):
    """Scores of a teacher's categories as they are guessed."""

    def __init__(self, predictor: Predictor, projector: Projector | None, names: tuple[str, ...], count: int) -> None:
        super().__init__()
        self.predictor, self.projector = predictor, projector
        self.names, self.count = names, count

    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        return _guess(self.predictor, self.projector, tokens)


@final
class BothHeads(CategoryHead):
    """Scores whose softmax is the mean of those of two heads."""

    def __init__(self, table: TableHead, taught: TaughtHead) -> None:
        super().__init__()
        self.table, self.taught = table, taught
        self.names, self.count = table.names, table.count

    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        said = [head(tokens).float().log_softmax(dim=-1) for head in (self.table, self.taught)]
        return torch.stack(said).logsumexp(dim=0) - math.log(2)


@final
class Classifier(CategoryHead):
    """A linear layer over the pooled row, as other libraries end in."""

    def __init__(self, layer: nn.Linear, names: tuple[str, ...]) -> None:
        super().__init__()
        self.layer, self.names, self.count = layer, names, layer.out_features

    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        return self.layer(tokens.pooled)


def scored(tokens: Tokens, head: CategoryHead | None) -> Tokens:
    """The scores of images as their pooled rows, and no rows of cells."""
    assert head is not None, "a width of categories comes with a head"
    scores = head(tokens)
    place = place_of(tokens.place.cell.new_full((len(scores), 1), POOLED))
    return Tokens(scores.unsqueeze(1), scores, place, tokens.grid, tokens.geometry)


def build_head(
    side: CategorySide, table: tuple[int, int], width: int, grid: Grid, names: tuple[str, ...]
) -> TableHead | BothHeads:
    """The head with its first weights.

    Args:
        table: (classes, width) of the table.
        width: of the encoder.
        grid: of the encoder.
    """
    classes, wide = table
    likelihood = side.likelihood.build()
    assert isinstance(likelihood, Tempered), "a table is explained by a likelihood that gives logits"
    projector, read = _projector(side.through, width)
    head = TableHead(side.predictor.build(read, wide, grid), TableTarget(wide, classes), likelihood, names, projector)
    if side.taught is None:
        return head
    projector, read = _projector(side.taught.through, width)
    predictor = side.taught.predictor.build(read, classes, grid)
    return BothHeads(head, TaughtHead(predictor, projector, names, classes))


def fill_head(head: TableHead | BothHeads, side: CategorySide, weights: dict[str, Tensor]) -> None:
    """Load the weights of a head, under the names that a run has for them."""
    table = head.table if isinstance(head, BothHeads) else head
    _fill(table.projector, weights, "" if side.through is None else f"projectors.trained.{side.through.name}.")
    _fill(table.predictor, weights, f"predictors.{side.term}.")
    _fill(table.table, weights, f"targets.{side.term}.")
    _fill(table.likelihood, weights, f"likelihoods.{side.term}.")
    if isinstance(head, BothHeads) and side.taught is not None:
        name = "" if side.taught.through is None else f"projectors.trained.{side.taught.through.name}."
        _fill(head.taught.projector, weights, name)
        _fill(head.taught.predictor, weights, f"predictors.{side.taught.term}.")


def _fill(module: nn.Module | None, weights: dict[str, Tensor], prefix: str) -> None:
    if module is not None:
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        module.load_state_dict(own)


def _projector(through: Through | None, width: int) -> tuple[Projector | None, int]:
    """A projector, and how wide rows are behind it."""
    made = None if through is None else through.projector.build(width)
    return made, width if made is None else made.width


def _guess(predictor: Predictor, projector: Projector | None, tokens: Tokens) -> Float[Tensor, "b k"]:
    """What is guessed of the image."""
    if projector is not None:
        tokens = projector(tokens)
    cells = tokens.place.cell
    pooled = cells.new_full((cells.shape[0], 1), POOLED)
    return predictor(tokens, Wanted(pooled, tokens.grid, tokens.geometry))[:, 0]
