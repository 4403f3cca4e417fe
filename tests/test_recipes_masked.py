"""Masked rows at paper size: the numbers of their papers, and real steps at full width."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from full_width import steps, student_of
from onestage import recipes
from onestage.recipes.masked import MASKED_ROWS


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


def test_every_recipe_has_its_sheet() -> None:
    assert SHEETS.keys() | {"simmim_swin_b", "simmim_swinv2_b"} == {row.__name__ for row in MASKED_ROWS}


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


@pytest.mark.parametrize("name", [name for name in SHEETS if "_b1" in name])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipes.recipe(name))
    assert done[0].losses.total.item() == pytest.approx(SHEETS[name].loss[0], abs=SHEETS[name].loss[1])
    assert still == []
