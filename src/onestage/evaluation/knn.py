"""Weighted nearest neighbours on frozen features (DINO, arXiv:2104.14294, section 3.2 and appendix F.1).

Features are L2-normalised; each of the k nearest training images votes for its class with exp(cosine / 0.07).
"""

from __future__ import annotations

from typing import Annotated, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.evaluation.features import Features, Pool, Positive, features, labelled
from onestage.evaluation.labels import accuracies, check_pair, class_count, label_ranks
from onestage.roles import Evaluator, Source, Teacher
from onestage.spec import spec

HEADLINE = 20
"""The k whose accuracy is `top1`; DINO finds it the best one usually."""
ELEMENTS = 1 << 26
"""Similarities held at once."""


@final
@spec
class Knn(Evaluator):
    """Nearest neighbours in labelled training data, on frozen features; nothing is trained.

    Metrics: `top1`, `top5` and `mean_per_class` of the k nearest to 20; `top1_k10` and so on for each k;
    `chance`, `bank` (training images), `samples`, `skipped` (of both). A k above the bank's size is cut.
    """

    neighbours: Annotated[tuple[Positive, ...], Field(min_length=1)] = (10, 20, 100, 200)
    temperature: Annotated[float, Field(gt=0)] = 0.07
    pool: Pool | None = None
    """The one that the model was trained with, unless given."""
    batch: Positive = 64
    limit: Positive | None = None
    """At most so many samples of the data, and as many of the training data, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model by labelled training data.

        Raises:
            UserError: when one of the two has no labels, or they do not fit one another.
        """
        train = check_pair(data, train, "knn")
        test = labelled(features(model, data, "raw", self.pool, batch=self.batch, limit=self.limit), data.name)
        bank = labelled(features(model, train, "raw", self.pool, batch=self.batch, limit=self.limit), train.name)
        return self.judge(bank, test, class_count(data, test, bank))

    def judge(self, bank: Features, test: Features, classes: int) -> dict[str, float]:
        """The same, of labelled features that are there already."""
        sizes = sorted({min(k, len(bank.keys)) for k in self.neighbours})
        ranks = {
            k: label_ranks(scores, test.labels)
            for k, scores in votes(bank.rows, bank.labels, test.rows, sizes, classes, self.temperature).items()
        }
        headline = min(sizes, key=lambda k: abs(k - HEADLINE))
        metrics = accuracies(ranks[headline], test.labels, classes)
        metrics |= {f"top1_k{k}": (rank == 0).double().mean().item() for k, rank in ranks.items()}
        counts = {"bank": len(bank.keys), "samples": len(test.keys), "skipped": test.skipped + bank.skipped}
        return metrics | {name: float(count) for name, count in counts.items()}


def votes(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "q d"],
    neighbours: list[int],
    classes: int,
    temperature: float,
) -> dict[int, Float[Tensor, "q classes"]]:
    """For each k, the sum of votes for each class; features need not be normalised."""
    bank, queries = functional.normalize(bank, dim=-1), functional.normalize(queries, dim=-1)
    step = max(ELEMENTS // len(bank), 1)
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for piece in queries.split(step):
        near = (piece @ bank.T).topk(max(neighbours), dim=1)
        weight, voted = (near.values / temperature).exp(), labels[near.indices]
        for k in neighbours:
            scores = weight.new_zeros(len(piece), classes)
            found[k].append(scores.scatter_add_(1, voted[:, :k], weight[:, :k]))
    return {k: torch.cat(pieces) for k, pieces in found.items()}
