"""The paper-size recipes of rows with other guides and other terms, against what their papers say differs."""

from __future__ import annotations

import open_clip
import pytest
import torch

from onestage import recipes
from onestage.encoders import Vit
from onestage.methods import METHODS
from onestage.objective import Answers, Objective
from onestage.pretraining.prepare import load_teachers
from onestage.spec import UserError, to_plain


def changes(one: object, other: object, at: str = "") -> dict[str, tuple[object, object]]:
    """Where two plain values differ, by path."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = (changes(one.get(key), other.get(key), f"{at}.{key}") for key in one.keys() | other.keys())
        return {path: pair for found in pairs for path, pair in found.items()}
    return {} if one == other else {at: (one, other)}


@pytest.mark.parametrize("clip", ["mvp_b16", "mvp_l16"])
def test_dino_guides_mvp_from_its_own_space_and_nothing_else_differs(clip: str) -> None:
    found = changes(to_plain(recipes.recipe(clip)), to_plain(recipes.recipe(f"{clip}_dino")))
    assert found == {
        ".name": (clip, f"{clip}_dino"),
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


@pytest.mark.parametrize(("name", "side"), [("mvp_b16_dino", 14), ("mvp_l16_dino", 14), ("uta_mim_b14", 16)])
def test_the_models_fit_a_teacher_on_their_grid(name: str, side: int) -> None:
    recipe = recipes.recipe(name)
    assert isinstance(recipe.models["student"], Vit)
    with torch.device("meta"):
        objective = Objective(recipe.method, recipe.models, {"teacher": Answers((side, side), 512, 768)})
    assert objective.encoder("student").grid == (side, side)
    width = 768 if name.endswith("_dino") else 512
    for term in recipe.method.terms:
        shapes = [p.shape for p in objective.predictor(term).parameters() if p.ndim == 2]
        assert shapes == [(width, 1024 if "_l16" in name else 768)]


UTA_OF_PAPER = ("uta_b14", "uta_l14", "uta_g14", "uta_mim_b14")


def test_utas_recipes_name_a_published_teacher_of_their_grid_and_pixels() -> None:
    for name in UTA_OF_PAPER:
        (reference,) = recipes.recipe(name).teachers.values()
        assert not recipes.recipe(name).missing_teachers
        model, _, tag = reference.removeprefix("open_clip:").partition("/")
        published, config = open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model)
        assert (model, published["mean"]) == ("EVA01-g-14-plus", open_clip.OPENAI_DATASET_MEAN)
        assert config is not None
        assert (config["embed_dim"], config["vision_cfg"]["image_size"]) == (1024, 224)


def test_a_teacher_that_is_not_to_be_had_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(repository: str, filename: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("onestage.teachers.open_clip.download_pretrained_from_hf", offline)
    with pytest.raises(UserError) as said:
        load_teachers(recipes.recipe("uta_b14"), torch.device("cpu"))
    for word in (
        "timm/eva_giant_patch14_plus_clip_224.merged2b_s11b_b114k",
        "open_clip:EVA01-g-14-plus/FILE",
        "--teacher",
    ):
        assert word in str(said.value)
