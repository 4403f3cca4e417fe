"""Linear probe on frozen features (arXiv:2304.07193, appendix B.3), a sweep of learning rates at once.

A tenth of the training data chooses the rate, the rest trains; test labels choose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from onestage.evaluation.features import Features, Pool, Positive, device_of, features, labelled
from onestage.evaluation.heads import (
    Heads,
    Labelled,
    Rate,
    first_weights,
    held_out,
    logits,
    moments,
    train_heads,
)
from onestage.evaluation.labels import accuracies, check_pair, class_count, label_ranks
from onestage.roles import Evaluator, Source, Teacher
from onestage.spec import UserError, spec


@final
@spec
class Linear(Evaluator):
    """A linear classifier trained on frozen features, its learning rate chosen on held-out training data.

    Metrics: `top1`, `top5` and `mean_per_class` on the data by the chosen rate; `rate`; `held_out_top1` by
    which it was chosen; `top1_lr0.1` and so on for the whole sweep; `chance`, `train`, `samples`, `skipped`
    (of both).
    The same seed gives the same answer.
    """

    rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    steps: Positive = 1000
    rows: Positive = 512
    """Features in a step."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: int = 0
    pool: Pool | None = None
    """The one that the model was trained with, unless given."""
    batch: Positive = 64
    """Images encoded at once."""
    limit: Positive | None = None
    """At most so many samples of the data, and as many of the training data, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model by labelled training data.

        Raises:
            UserError: when one of the two has no labels, or they do not fit one another.
        """
        train = check_pair(data, train, "linear")
        test = labelled(features(model, data, "raw", self.pool, batch=self.batch, limit=self.limit), data.name)
        known = labelled(features(model, train, "raw", self.pool, batch=self.batch, limit=self.limit), train.name)
        if len(known.keys) < 2:
            raise UserError(f"linear: {train.name} has one usable labelled image, but two are needed at least")
        return self.judge(known, test, class_count(data, test, known), device_of(model))

    def judge(self, known: Features, test: Features, classes: int, device: torch.device) -> dict[str, float]:
        """The same, of labelled features that are there already; the heads are trained on `device`."""
        draw = torch.Generator().manual_seed(self.seed)
        held, fit = held_out(len(known.keys), self.held_out, draw)
        standard = moments(known.rows[fit])
        rows, labels = standard(known.rows), known.labels
        first = first_weights(rows.shape[1], classes, draw, device)
        batches = epochs(rows[fit].to(device), labels[fit].to(device), self.rows, draw)
        heads = train_heads(batches, first, self.rates, self.steps)
        chosen_by = [(rank == 0).double().mean().item() for rank in head_ranks(heads, rows[held], labels[held])]
        best = max(range(len(self.rates)), key=chosen_by.__getitem__)
        ranks = head_ranks(heads, standard(test.rows), test.labels)
        metrics = accuracies(ranks[best], test.labels, classes)
        metrics |= {"rate": self.rates[best], "held_out_top1": chosen_by[best]}
        for rate, rank in zip(self.rates, ranks, strict=True):
            metrics[f"top1_lr{rate:g}"] = (rank == 0).double().mean().item()
        counts = {"train": len(fit), "samples": len(test.keys), "skipped": test.skipped + known.skipped}
        return metrics | {name: float(count) for name, count in counts.items()}


def epochs(
    rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], size: int, draw: torch.Generator
) -> Iterator[Labelled]:
    """Batches without end: all rows in a random order, and again in another."""
    size = min(size, len(rows))
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        if len(queue) < size:
            queue = torch.cat([queue, torch.randperm(len(rows), generator=draw)])
        take, queue = queue[:size].to(rows.device), queue[size:]
        yield Labelled(rows[take], labels[take])


def head_ranks(heads: Heads, rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> list[Int[Tensor, " n"]]:
    """For every head, how many classes stand before the true one."""
    cpu = Heads(heads.weight.cpu(), heads.bias.cpu())
    return [label_ranks(scores, labels) for scores in logits(cpu, rows.cpu())]
