"""The paper-size recipes of rows with other guides and other terms, against what their papers say differs."""

from __future__ import annotations

import pytest
import torch

from onestage import recipes
from onestage.encoders import Vit
from onestage.methods import METHODS
from onestage.objective import Answers, Objective
from onestage.spec import to_plain


def changes(one: object, other: object, at: str = "") -> dict[str, tuple[object, object]]:
    """Where two plain values differ, by path."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = (changes(one.get(key), other.get(key), f"{at}.{key}") for key in one.keys() | other.keys())
        return {path: pair for found in pairs for path, pair in found.items()}
    return {} if one == other else {at: (one, other)}


def test_dino_guides_mvp_from_its_own_space_and_nothing_else_differs() -> None:
    found = changes(to_plain(recipes.recipe("mvp_b16")), to_plain(recipes.recipe("mvp_b16_dino")))
    assert found == {
        ".name": ("mvp_b16", "mvp_b16_dino"),
        ".method.terms.guide.target.space": ("joint", "raw"),
        ".models.student.normalise": ("clip", "imagenet"),
    }


def test_uta_with_mim_runs_for_the_ablations_90_epochs_on_the_backbone_of_uta() -> None:
    alone, both = recipes.recipe("uta_b14"), recipes.recipe("uta_mim_b14")
    assert (both.models, both.batch, both.optimiser) == (alone.models, alone.batch, alone.optimiser)
    total = both.total_steps(4096 * 900)
    assert (both.epochs, total, both.schedule.warmup_steps(total)) == (90, 81_000, 900)
    (seen,) = (part for asked in both.method.inputs.values() for part in asked.parts.values())
    assert seen.hide is not None and (seen.mode, seen.hide.kind, seen.hide.count((16, 16))) == (
        "replace",
        "block_reversed",
        102,
    )


def test_uta_with_mim_explains_every_cell_once_and_the_class_token() -> None:
    """UTA's rows are those that are shown, with the class token; the other term's are those that are hidden."""
    rows = {name: term.target.rows for name, term in METHODS["uta_mim"].terms.items()}
    assert rows == {"align": "kept+cls", "feature": "hidden"}
    assert {term.x for term in METHODS["uta_mim"].terms.values()} == {"masked"}


@pytest.mark.parametrize(("name", "side"), [("mvp_b16_dino", 14), ("uta_mim_b14", 16)])
def test_the_models_fit_a_teacher_on_their_grid(name: str, side: int) -> None:
    recipe = recipes.recipe(name)
    assert isinstance(recipe.models["student"], Vit)
    with torch.device("meta"):
        objective = Objective(recipe.method, recipe.models, {"teacher": Answers((side, side), 512, 768)})
    assert objective.encoder("student").grid == (side, side)
    width = 768 if name == "mvp_b16_dino" else 512
    for term in recipe.method.terms:
        shapes = [p.shape for p in objective.predictor(term).parameters() if p.ndim == 2]
        assert shapes == [(width, 768)]
