"""Labels and class names: files of names, whether two sources agree, and how right a classifier is."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from onestage.evaluation.features import Features
from onestage.roles import Source
from onestage.spec import UserError

MAX_BYTES = 1 << 24
"""Of a file of class names."""
TOP5_CLASSES = 10
"""Top-5 says something from so many classes up."""


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in the order of their labels: one a line, or a list of strings in a `.json` file.

    Raises:
        UserError: when the file cannot be read, is too large, or holds anything but names.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for class names (at most {MAX_BYTES})")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a file of class names ({error})") from None
    names = _from_json(path, text) if path.suffix == ".json" else [line.strip() for line in text.rstrip().split("\n")]
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{path}: class {number} has an empty name; every label needs one, in order")
    return tuple(names)


def _from_json(path: Path, text: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f'{path}: expected a list of class names, such as ["cat", "dog"]')
    return [name.strip() for name in names]


def check_pair(data: Source, train: Source | None, task: str) -> Source:
    """The labelled training data, where it may be used to judge `data`.

    Raises:
        UserError: when it is missing, is the same data, or numbers other classes.
    """
    if train is None:
        raise UserError(f"{task}: needs labelled training data; give it with --train SRC")
    if train.fingerprint() == data.fingerprint():
        raise UserError(
            f"{task}: the training data and the test data are the same ({data.name}), so every image would "
            "be judged by itself; give other data with --train or --data"
        )
    if data.classes and train.classes and data.classes != train.classes:
        raise UserError(
            f"{task}: {train.name} has the classes {_few(train.classes)}, but {data.name} has "
            f"{_few(data.classes)}; both must have the same classes in the same order"
        )
    return train


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
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''} ({len(names)})"
