"""Linear probe on frozen features: all learning rates at once as a stack of heads over the same batches.

The shared pass over the data is DINOv2's (arXiv:2304.07193, appendix B.3); features are standardised by the
training data's mean and deviation, as by MAE's batch norm without affine (arXiv:2111.06377, appendix A.1).
SGD with momentum 0.9, no weight decay, a cosine to zero. A tenth of the training data chooses the rate, the
rest trains; test labels choose nothing.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.evaluation.features import Features, Pool, Positive, device_of, features, labelled
from onestage.evaluation.labels import accuracies, check_pair, class_count, label_ranks
from onestage.roles import Evaluator, Source, Teacher
from onestage.spec import UserError, spec

Rate = Annotated[float, Field(gt=0)]
MOMENTUM = 0.9
INIT = 0.01
"""Deviation of the first weights (DINO)."""


class Heads(NamedTuple):
    """One linear classifier a learning rate."""

    weight: Float[Tensor, "r d classes"]
    bias: Float[Tensor, "r 1 classes"]


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
    pool: Pool = "cls"
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
        classes = class_count(data, test, known)
        return self._probe(known, test, classes, device_of(model))

    def _probe(self, known: Features, test: Features, classes: int, device: torch.device) -> dict[str, float]:
        draw = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(known.keys), generator=draw)
        held, fit = order.split([(count := _held(len(order), self.held_out)), len(order) - count])
        mean, deviation = moments(known.rows[fit])
        rows, labels = (known.rows - mean) / deviation, known.labels
        heads = train_heads(
            rows[fit].to(device), labels[fit].to(device), classes, self.rates, self.steps, self.rows, draw
        )
        chosen_by = [(rank == 0).double().mean().item() for rank in head_ranks(heads, rows[held], labels[held])]
        best = max(range(len(self.rates)), key=chosen_by.__getitem__)
        ranks = head_ranks(heads, (test.rows - mean) / deviation, test.labels)
        metrics = accuracies(ranks[best], test.labels, classes)
        metrics |= {"rate": self.rates[best], "held_out_top1": chosen_by[best]}
        for rate, rank in zip(self.rates, ranks, strict=True):
            metrics[f"top1_lr{rate:g}"] = (rank == 0).double().mean().item()
        counts = {"train": len(fit), "samples": len(test.keys), "skipped": test.skipped + known.skipped}
        return metrics | {name: float(count) for name, count in counts.items()}


def moments(rows: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and deviation of each feature; a feature that is constant keeps its scale."""
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    return mean, torch.where(deviation > 1e-6, deviation, 1.0)


def train_heads(
    rows: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    classes: int,
    rates: tuple[float, ...],
    steps: int,
    size: int,
    draw: torch.Generator,
) -> Heads:
    """One head a rate, all from the same first weights and on the same batches of `size` rows."""
    first = torch.randn(rows.shape[1], classes, generator=draw) * INIT
    weight = first.to(rows.device).repeat(len(rates), 1, 1)
    heads = Heads(weight, weight.new_zeros(len(rates), 1, classes))
    speed = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    rate = torch.tensor(rates, device=rows.device)[:, None, None]
    size = min(size, len(rows))
    queue = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(queue) < size:
            queue = torch.cat([queue, torch.randperm(len(rows), generator=draw)])
        take, queue = queue[:size].to(rows.device), queue[size:]
        now = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        x, target = rows[take], functional.one_hot(labels[take], classes).to(rows.dtype)
        error = (logits(heads, x).softmax(dim=-1) - target) / size  # the gradient of the mean cross-entropy
        for value, velocity, slope in zip(
            heads, speed, (torch.einsum("nd,rnc->rdc", x, error), error.sum(1, keepdim=True)), strict=True
        ):
            velocity.mul_(MOMENTUM).add_(slope)
            value.sub_(now * velocity)
    return heads


def logits(heads: Heads, rows: Float[Tensor, "n d"]) -> Float[Tensor, "r n classes"]:
    """Scores of every head."""
    return torch.einsum("nd,rdc->rnc", rows, heads.weight) + heads.bias


def head_ranks(heads: Heads, rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> list[Int[Tensor, " n"]]:
    """For every head, how many classes stand before the true one."""
    cpu = Heads(heads.weight.cpu(), heads.bias.cpu())
    return [label_ranks(scores, labels) for scores in logits(cpu, rows.cpu())]


def _held(count: int, share: float) -> int:
    return min(max(round(count * share), 1), count - 1)
