"""Zero-shot classification with an ensemble of prompts (CLIP, arXiv:2103.00020, section 3.1.4).

For each class: every prompt encoded and L2-normalised, their mean, normalised again. An image gets the class
of the largest cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.data.classes import read_classes
from onestage.evaluation.features import Features, Pool, Positive, embed_texts, features, labelled
from onestage.evaluation.labels import accuracies, label_ranks
from onestage.roles import Evaluator, Source, Teacher
from onestage.spec import UserError, spec

CHUNK = 1024
"""Images scored at once."""


@final
@spec
class ZeroShot(Evaluator):
    """Classes by their names alone: each image gets the class whose prompts are nearest.

    Metrics: `top1`, `top5` (from ten classes up), `mean_per_class`, `chance`, `samples`, `skipped`. Of equal
    scores the lowest class number wins, so that of two classes of one name the first does.
    """

    classes: Path | None = None
    """A file of class names in place of the source's own: one a line, or a `.json` list."""
    templates: tuple[str, ...] | None = None
    """Prompts with {} for the class name; empty, or `clip` alone: CLIP's eighty."""
    pool: Pool = "cls"
    batch: Positive = 64
    limit: Positive | None = None
    """At most so many samples, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model; `train` is not used.

        Raises:
            UserError: for a model without texts, data without labels, or class names that do not fit them.
        """
        need_joint(model, "zero-shot")
        names = class_names(data, self.classes)
        prompts = checked(self.templates)
        found = labelled(features(model, data, "joint", self.pool, batch=self.batch, limit=self.limit), data.name)
        highest = int(found.labels.max())
        if highest >= len(names):
            where = self.classes or data.name
            raise UserError(f"{where}: names {len(names)} classes, but {data.name} has the label {highest}; name all")
        ranks = _ranks(found, names, class_weights(model, sorted(set(names)), prompts))
        metrics = accuracies(ranks, found.labels, len(names))
        return metrics | {"samples": float(len(found.keys)), "skipped": float(found.skipped)}


def class_names(data: Source, file: Path | None) -> tuple[str, ...]:
    """The names of the labels, from a file where one is given.

    Raises:
        UserError: when there are none, or another number of them than labels.
    """
    if file is None:
        if not data.classes:
            raise UserError(
                f"{data.name}: has no class names; give them with --classes FILE (one a line, label 0 first)"
            )
        return data.classes
    names = read_classes(file)
    if data.classes and len(names) != len(data.classes):
        raise UserError(
            f"{file}: names {len(names)} classes, but {data.name} has {len(data.classes)} labels; "
            "name every label once, one a line, label 0 first"
        )
    return names


def checked(templates: tuple[str, ...] | None) -> tuple[str, ...]:
    """Prompts that can be filled in.

    Raises:
        UserError: when one has no place for the class name.
    """
    if templates is None or templates in {(), ("clip",)}:
        return clip_templates()
    for template in templates:
        if "{}" not in template:
            raise UserError(f"prompt '{template}': has no {{}} for the class name, such as 'a photo of a {{}}.'")
    return templates


def clip_templates() -> tuple[str, ...]:
    """CLIP's eighty prompts for ImageNet, in their published order."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def class_weights(model: Teacher, names: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "classes d"]:
    """One unit row a class: the normalised mean of its normalised prompts."""
    rows = []
    for name in names:
        prompts = embed_texts(model, [template.replace("{}", name) for template in templates])
        rows.append(functional.normalize(prompts.mean(dim=0), dim=-1))
    return torch.stack(rows)


def need_joint(model: Teacher, task: str) -> None:
    """Raise UserError unless the model can compare images with texts."""
    if not (model.has_text and model.has_joint):
        lack = "text tower" if not model.has_text else "space that images and texts share"
        raise UserError(
            f"{task}: {model.reference} has no {lack}; use a model that learned from texts or from a CLIP "
            "teacher, or judge it by knn or linear"
        )


def _ranks(found: Features, names: tuple[str, ...], weights: Float[Tensor, "distinct d"]) -> Tensor:
    """Ranks of the true classes. Equal names share one column, so that their scores are equal to the bit."""
    distinct = {name: number for number, name in enumerate(sorted(set(names)))}
    column = torch.tensor([distinct[name] for name in names])
    rows = functional.normalize(found.rows, dim=-1)
    pieces = zip(rows.split(CHUNK), found.labels.split(CHUNK), strict=True)
    return torch.cat([label_ranks((row @ weights.T)[:, column], label) for row, label in pieces])
