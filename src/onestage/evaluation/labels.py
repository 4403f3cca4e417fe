"""Labels: whether two sources agree on their classes, and how right a classifier is."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from onestage.evaluation.features import Features
from onestage.roles import Source
from onestage.spec import UserError

TOP5_CLASSES = 10
"""Top-5 says something from so many classes up."""


def check_pair(data: Source, train: Source | None, task: str) -> Source:
    """The labelled training data, where it may be used to judge `data`.

    Raises:
        UserError: when it is missing, is the same data, or numbers other classes.
    """
    train = check_apart(data, train, task, "labelled training data")
    if data.classes and train.classes:
        check_names(task, train.name, train.classes, data.name, data.classes)
    return train


def check_apart(data: Source, train: Source | None, task: str, needed: str) -> Source:
    """The training data, where it is not the data that are judged.

    Raises:
        UserError: when it is missing, or is the same data.
    """
    if train is None:
        raise UserError(f"{task}: needs {needed}; give it with --train SRC")
    if train.fingerprint() == data.fingerprint():
        raise UserError(
            f"{task}: the training data and the test data are the same ({data.name}), so every image would "
            "be judged by itself; give other data with --train or --data"
        )
    return train


def check_names(task: str, known: str, classes: tuple[str, ...], data: str, others: tuple[str, ...]) -> None:
    """Raise UserError where two lists of class names differ.

    Args:
        known: what has the names `classes`.
        data: what has the names `others`.
    """
    if classes != others:
        raise UserError(
            f"{task}: {known} has the classes {_few(classes)}, but {data} has {_few(others)}; "
            "both must have the same classes in the same order"
        )


def class_count(data: Source, *found: Features) -> int:
    """How many classes there are, by name or by the labels that occur."""
    return max([len(data.classes), *(int(one.labels.max()) + 1 for one in found)])


def label_ranks(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """How many classes stand before the true one. Of equal scores the lowest class number stands first; a
    score that is not a number stands last."""
    scores = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    true = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return ((scores > true) | ((scores == true) & earlier)).sum(dim=1)


def accuracies(ranks: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> dict[str, float]:
    """`top1`, `top5` (from ten classes up), `mean_per_class` over the classes that occur, and `chance`."""
    right = (ranks == 0).double()
    count = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, torch.ones_like(right))
    hits = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, right)
    found = {"top1": right.mean().item()}
    if classes >= TOP5_CLASSES:
        found["top5"] = (ranks < 5).double().mean().item()
    occurs = count > 0
    return found | {"mean_per_class": (hits[occurs] / count[occurs]).mean().item(), "chance": 1 / classes}


def _few(names: tuple[str, ...]) -> str:
    if not names:
        return "(none named)"
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''} ({len(names)})"
