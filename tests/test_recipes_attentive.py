"""MaskAlign, UMT and MILAN at paper size: the numbers of their papers, and real steps at full width."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from full_width import steps, student_of
from onestage import recipes
from onestage.methods import METHODS
from onestage.objective import Answers, asks
from onestage.recipes.attentive import ATTENTIVE_ROWS
from onestage.types import Also
from test_objective import answers_for, batch_for, objective_for


class Sheet(NamedTuple):
    """What the papers and their code say."""

    batch: int
    lr: float
    epochs: float
    warm: float
    ends: tuple[float, float]
    drop_path: float
    kept: int
    loss: tuple[float, float]
    """At the start, and how far chance may lead from it."""


SHEETS = {
    "maskalign_b16": Sheet(1024, 6e-4, 200, 20, (0.0, 1e-5), 0.1, 58, (1.0, 0.3)),
    "maskalign_l16": Sheet(1024, 6e-4, 200, 20, (0.0, 1e-5), 0.2, 58, (1.0, 0.3)),
    "umt_b16": Sheet(2048, 1.2e-3, 201, 40, (8e-6, 8e-5), 0.1, 39, (0.0, 0.1)),
    "umt_l16": Sheet(2048, 1.2e-3, 201, 40, (8e-6, 8e-5), 0.2, 39, (0.0, 0.1)),
    "milan_b16": Sheet(4096, 2.4e-3, 400, 40, (0.0, 0.0), 0.0, 49, (0.0, 0.1)),
    "milan_l16": Sheet(4096, 2.4e-3, 400, 40, (0.0, 0.0), 0.0, 49, (0.0, 0.1)),
}


def test_every_recipe_has_its_sheet() -> None:
    assert SHEETS.keys() == {row.__name__ for row in ATTENTIVE_ROWS}


@pytest.mark.parametrize("name", SHEETS)
def test_the_numbers_of_the_paper(name: str) -> None:
    recipe, sheet = recipes.recipe(name), SHEETS[name]
    model, (group,) = student_of(recipe), recipe.optimiser.groups.values()
    assert (recipe.name, recipe.batch, recipe.epochs, group.lr) == (name, sheet.batch, sheet.epochs, sheet.lr)
    assert (group.betas, group.weight_decay, group.clip) == ((0.9, 0.95), 0.05, None)
    assert (model.size, model.drop_path, model.positions) == (224, sheet.drop_path, "sincos")
    assert recipe.schedule.warmup_steps(20_100) == round(20_100 * sheet.warm / sheet.epochs)
    assert recipe.schedule.at(0, 20_100, group.lr) == pytest.approx(sheet.ends[0])
    assert recipe.schedule.at(20_100, 20_100, group.lr) == pytest.approx(sheet.ends[1])
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and (part.hide.kind, 196 - part.hide.count((14, 14))) == ("attentive", sheet.kept)


@pytest.mark.parametrize("name", [name for name in SHEETS if "_b16" in name])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipes.recipe(name), Answers((14, 14), 512, 768))
    assert done[0].losses.total.item() == pytest.approx(SHEETS[name].loss[0], abs=SHEETS[name].loss[1])
    assert still == []


def test_a_teacher_is_asked_once_for_all_that_is_wanted() -> None:
    found = {name: [(ask.space, ask.also) for ask in asks(METHODS[name])] for name in ("maskalign", "umt", "milan")}
    assert found == {
        "maskalign": [("raw", Also(5, attention=True))],
        "umt": [("joint", Also(6, attention=True))],
        "milan": [("joint", Also(0, attention=True))],
    }


def smooth_l1(gap: float) -> float:
    return gap**2 / 2 if abs(gap) < 1 else abs(gap) - 0.5


def test_maskalign_is_twice_smooth_l1_of_whitened_blocks_a_fifth_each() -> None:
    row = METHODS["maskalign"]
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    represented, (answer,) = objective.represent(batch, answers), answers.values()
    total = 0.0
    for number in range(1, 6):
        guess, layer = represented.guesses[f"block{number}"].detach().double(), answer.layers[-number]
        noise, kept = batch.noise["kept/image"], 36 - 26
        for sample in range(4):
            score = (answer.attention[sample].double() + 1e-8).log() - (-noise[sample].double().log()).log()
            cells = sorted(score.argsort(descending=True)[:kept].tolist())
            for place, cell in enumerate([-1, *cells]):
                truth = (layer.pooled[sample] if cell < 0 else layer.rows[sample, cell]).double()
                truth = (truth - truth.mean()) / (truth.var(unbiased=False) + 1e-5).sqrt()
                gaps = (guess[sample, place] - truth).tolist()
                total += 2 / 5 * sum(map(smooth_l1, gaps)) / len(gaps) / (kept + 1) / 4
    assert objective.score(represented).total.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ["umt", "milan"])
def test_rows_on_the_sphere_cost_two_minus_two_cosines(name: str) -> None:
    """The mean over rows and blocks of 2 - 2 cos, but for its constant."""
    row = METHODS[name]
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    represented = objective.represent(batch, answers)
    costs = []
    for term, guess in represented.guesses.items():
        target = represented.targets[term].rows
        assert guess.shape[1] == (37 if name == "milan" else 36 - 29)
        a, b = guess.detach().double().flatten(0, 1), target.double().flatten(0, 1)
        costs += [2 - 2 * float(torch.dot(x, y) / x.norm() / y.norm()) for x, y in zip(a, b, strict=True)]
    assert objective.score(represented).total.item() == pytest.approx(sum(costs) / len(costs) - 2, abs=1e-5)
