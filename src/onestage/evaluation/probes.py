"""Every probe of a frozen model on one source: each image is encoded once for kNN and linear, in both poolings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onestage.evaluation import DenseProbe, Features, Knn, Linear, Pool, ZeroShot, pooled
from onestage.evaluation.features import answers, device_of, labelled
from onestage.evaluation.labels import check_pair, class_count
from onestage.roles import Source, Teacher

SPLITS = {
    "scenes": "scenes:test",
    "scenes:train": "scenes:test",
    "digits": "digits:test",
    "digits:train": "digits:test",
}
"""What built-in training data are judged on."""
POOLS: tuple[Pool, ...] = ("cls", "mean")


class Probed(NamedTuple):
    """Shares in [0, 1]; `dense` is the mean IoU, None where the data have no masks; `zero_shot` is None where the
    model shares no space with texts."""

    linear: float
    knn: float
    dense: float | None
    zero_shot: float | None
    pool: Pool
    """What linear and kNN read: the pooled row or the mean of the patch rows, whichever is better by a linear probe
    on held-out training data. A row that trains no pooled row is not judged by it."""


def probe(model: Teacher, train: Source, data: Source, limit: int) -> Probed:
    """Judge a model by linear probe, kNN, where there are masks dense probe, and where it knows texts zero-shot.

    Args:
        limit: at most so many training images, and as many of the data; a quarter as many for the dense probe.

    Raises:
        UserError: when the sources have no labels, or do not fit one another.
    """
    check_pair(data, train, "linear and kNN probes")
    known, test = _both(model, train, limit), _both(model, data, limit)
    classes = class_count(data, known["cls"], test["cls"])
    linear = {pool: Linear().judge(known[pool], test[pool], classes, device_of(model)) for pool in POOLS}
    best = max(POOLS, key=lambda pool: linear[pool]["held_out_top1"])
    knn = Knn().judge(known[best], test[best], classes)
    dense = None
    if train.has_masks and data.has_masks:
        dense = DenseProbe(limit=max(limit // 4, 2)).run(model, data, train)["miou"]
    named = None
    if model.has_joint and model.has_text and data.classes:
        named = ZeroShot(limit=limit, templates=model.templates or None).run(model, data, None)["top1"]
    return Probed(linear[best]["top1"], knn["top1"], dense, named, best)


def _both(model: Teacher, source: Source, limit: int) -> dict[Pool, Features]:
    """Labelled features in both poolings, from one pass over the source."""

    def encode(pixels: Tensor) -> Tensor:
        tokens = model.tokens(pixels, "raw")
        return torch.cat([pooled(tokens, pool) for pool in POOLS], dim=1)

    found = labelled(answers(model, source, encode, limit), source.name)
    return {pool: found._replace(rows=rows) for pool, rows in zip(POOLS, found.rows.chunk(2, dim=1), strict=True)}
