"""A run's own trained category head used directly: the classifier as it was pre-trained, without fine-tuning.

M3I (arXiv:2211.09807, section 4) judges a pre-trained model on ImageNet in this way, beside fine-tuning it.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from onestage.evaluation.features import Positive, answers, labelled
from onestage.evaluation.labels import accuracies, check_names, label_ranks
from onestage.roles import CategoryHead, Evaluator, Source, Teacher
from onestage.spec import UserError, spec


@final
@spec
class Classify(Evaluator):
    """Categories by the head that a run has trained itself; nothing is trained.

    Metrics: `top1`, `top5` (from ten categories up), `mean_per_class`, `chance`, `samples`, `skipped`. Of equal
    scores the lowest category wins.
    """

    batch: Positive = 64
    limit: Positive | None = None
    """At most so many samples, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model; `train` is not used.

        Raises:
            UserError: for a model without a category head, or data without labels or with other classes.
        """
        head = need_categories(model, data)

        def score(pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
            return head(model.tokens(pixels, "raw"))

        found = labelled(answers(model, data, score, self.limit, batch=self.batch), data.name)
        classes, highest = found.rows.shape[1], int(found.labels.max())
        if highest >= classes:
            raise UserError(
                f"classify: {data.name} has the label {highest}, but {model.reference} learned {classes} categories; "
                "judge it on data with the same classes"
            )
        metrics = accuracies(label_ranks(found.rows, found.labels), found.labels, classes)
        return metrics | {"samples": float(len(found.keys)), "skipped": float(found.skipped)}


def need_categories(model: Teacher, data: Source) -> CategoryHead:
    """The category head of a model, where it can judge `data`.

    Raises:
        UserError: when it has none, or the data have no labels or other classes.
    """
    if model.categories is None:
        raise UserError(
            f"classify: {model.reference} has no category head of its own; use a run of a method that learns "
            "categories (onestage ls methods: target 'category embedding'), or judge it by knn or linear"
        )
    if not data.has_labels:
        raise UserError(f"classify: {data.name} has no labels; use class folders, or label in the metadata")
    check_names("classify", model.reference, model.categories.names, data.name, data.classes)
    return model.categories
