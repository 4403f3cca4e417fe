"""Evaluation while a run trains: the live model under the same evaluators as a finished one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from onestage.evaluation import Classify, Knn, ZeroShot
from onestage.evaluation.classify import need_categories
from onestage.pretraining.bundle import live
from onestage.pretraining.lines import Say
from onestage.pretraining.loop import Watched
from onestage.pretraining.prepare import Prepared
from onestage.pretraining.spec import Recipe, Task
from onestage.pretraining.validation import can_be_validated, validation_loss
from onestage.roles import Teacher


def watched(prepared: Prepared, say: Say) -> Watched:
    """What the recipe asks to be watched, and the loss; nothing where there is no validation data to watch it on."""
    recipe, val = prepared.recipe, prepared.val
    if not recipe.watch.every or val is None:
        return Watched()
    lack = can_be_validated(recipe.method, val)
    if lack:
        say(f"no validation loss: {lack}, which method {recipe.method.name} needs")
    return Watched([watching(task) for task in recipe.watch.tasks], () if lack else [validation_loss])


def refuse_unwatchable(prepared: Prepared) -> None:
    """Raise UserError before the first step where the run's own categories are to be watched and cannot be."""
    watch, val = prepared.recipe.watch, prepared.val
    if watch.every and val is not None and "classify" in watch.tasks:
        need_categories(live(prepared), val)


def watching(task: Task) -> Callable[[Prepared], dict[str, float]]:
    """One evaluation of the live model on the validation data; its headline number alone."""

    def evaluate(prepared: Prepared) -> dict[str, float]:
        assert prepared.val is not None, "nothing is watched without validation data"
        prepared.objective.eval()
        model = live(prepared)
        with torch.random.fork_rng(devices=[]):
            metrics = _evaluator(task, prepared.recipe, model).run(model, prepared.val, prepared.source)
        prepared.objective.training_mode()
        return {task: metrics["top1"]}

    return evaluate


def _evaluator(task: Task, recipe: Recipe, model: Teacher) -> ZeroShot | Knn | Classify:
    if task == "zero-shot":
        return ZeroShot(limit=recipe.watch.samples, templates=model.templates or None)
    if task == "classify":
        return Classify(limit=recipe.watch.samples)
    return Knn(limit=recipe.watch.samples)
