"""Masked rows at paper size: the numbers of their papers, and real steps at full width."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch

from onestage import recipes
from onestage.encoders import Vit
from onestage.engine.optimiser import Optimisers
from onestage.engine.step import Step
from onestage.objective import Objective
from onestage.pretraining import Recipe
from onestage.recipes.masked import MASKED_ROWS
from onestage.types import Batch, Geometry, View


class Sheet(NamedTuple):
    """What the paper and its code say."""

    batch: int
    lr: float
    epochs: float
    warm: float
    end: float
    clip: float
    drop_path: float
    layer_scale: float | None
    positions: str
    hidden: int
    loss: tuple[float, float]
    """At the start, and how far chance may lead from it."""


SHEETS = {
    "simmim_b16": Sheet(2048, 4e-4, 800, 10, 4e-5, 5.0, 0.1, 0.1, "relative", 120, (1.1, 0.4)),
    "data2vec_b16": Sheet(2048, 2e-3, 800, 10, 1e-5, 3.0, 0.25, 1e-4, "relative", 120, (0.3, 0.1)),
    "data2vec_l16": Sheet(4096, 1e-3, 800, 80, 1e-5, 3.0, 0.2, 1e-5, "relative", 120, (0.3, 0.1)),
    "maskfeat_b16": Sheet(2048, 1.6e-3, 300, 30, 8e-6, 0.02, 0.0, None, "learned", 78, (1 / 9, 0.5)),
    "maskfeat_l16": Sheet(2048, 1.6e-3, 1600, 30, 8e-6, 0.02, 0.0, None, "learned", 78, (1 / 9, 0.5)),
}


def student_of(recipe: Recipe) -> Vit:
    model = recipe.models["student"]
    assert isinstance(model, Vit)
    return model


def test_every_recipe_has_its_sheet() -> None:
    assert SHEETS.keys() == {row.__name__ for row in MASKED_ROWS}


@pytest.mark.parametrize("name", SHEETS)
def test_the_numbers_of_the_paper(name: str) -> None:
    recipe, sheet = recipes.recipe(name), SHEETS[name]
    model, (group,) = student_of(recipe), recipe.optimiser.groups.values()
    assert (recipe.name, recipe.batch, recipe.optimiser.reference_batch) == (name, sheet.batch, sheet.batch)
    assert (recipe.epochs, group.lr, group.clip, group.weight_decay) == (sheet.epochs, sheet.lr, sheet.clip, 0.05)
    assert (model.size, model.drop_path, model.layer_scale) == (224, sheet.drop_path, sheet.layer_scale)
    assert model.positions == sheet.positions and group.betas == (0.9, 0.999)
    total = 10_000
    assert recipe.schedule.warmup_steps(total) == round(total * sheet.warm / sheet.epochs)
    assert recipe.schedule.at(total, total, group.lr) == pytest.approx(sheet.end)
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and (part.hide.count((14, 14)), part.mode) == (sheet.hidden, "replace")


def batch_of_two(recipe: Recipe, objective: Objective) -> Batch:
    """Two images of noise, with what the recipe hides."""
    geometry = Geometry(torch.tensor([[0.0, 0.0, 224.0, 224.0]] * 2), torch.zeros(2, dtype=torch.bool))
    view = View(torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2)), geometry)
    hidden = {}
    for name, asked in recipe.method.inputs.items():
        grid = objective.encoder(asked.encoder).grid
        for key, part in asked.parts.items():
            if part.hide is not None:
                draws = [part.hide.draw(np.random.default_rng(sample), grid) for sample in range(2)]
                hidden[f"{name}/{key}"] = torch.from_numpy(np.stack(draws))
    return Batch(torch.arange(2), {"view1": view}, hidden, None, None)


@pytest.mark.parametrize("name", [name for name in SHEETS if "_b1" in name])
def test_two_steps_at_full_width(name: str) -> None:
    recipe = recipes.recipe(name)
    models = {key: dataclasses.replace(model, depth=2) for key, model in recipe.models.items()}
    torch.manual_seed(0)
    objective = Objective(recipe.method, models, {})
    objective.training_mode()
    optimisers = Optimisers(objective.named_parameters(), recipe.optimiser, recipe.batch)
    step = Step(objective, optimisers, lambda ask, batch: pytest.fail("no teacher"), "fp32", 1, torch.device("cpu"))
    batch = batch_of_two(recipe, objective)
    before = {key: value.detach().clone() for key, value in objective.named_parameters() if value.requires_grad}
    for number in (1000, 1001):
        optimisers.set_lr(recipe.schedule, number, 2000)
        stepped = step(batch, number, 2000)
        assert not stepped.skipped and torch.isfinite(stepped.losses.total)
        if number == 1000:
            assert stepped.losses.total.item() == pytest.approx(SHEETS[name].loss[0], abs=SHEETS[name].loss[1])
    after = dict(objective.named_parameters())
    assert [key for key, value in before.items() if value.equal(after[key])] == []
