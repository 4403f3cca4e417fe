"""Recipes: the paper-size ones against their papers' numbers, and all of them built, written and read back."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import nn

from full_width import shallow, steps, student_of
from onestage import recipes
from onestage.encoders import ClipText
from onestage.engine.optimiser import Optimisers
from onestage.methods import METHODS
from onestage.objective import Answers, Frozen, Objective, Trained
from onestage.objective.crops import fewer
from onestage.pretraining import Recipe
from onestage.pretraining.resolve import resolve
from onestage.recipes import FAMILIES, PAPER
from onestage.spec import UserError, from_plain, read_yaml, to_yaml

IMAGES = {"imagenet-1k": 1_281_167, "imagenet-21k": 14_197_122}


class Sheet(NamedTuple):
    """What the paper, or the recipe it builds on, says of a pre-training."""

    arch: str
    batch: int
    lr: float
    epochs: float
    warmup_epochs: float
    end: float
    betas: tuple[float, float]
    eps: float
    clip: float | None
    drop_path: float
    layer_scale: float | None
    kind: str
    hidden: int
    mode: str
    grid: tuple[int, int]


BEIT = {"kind": "block", "hidden": 75, "mode": "replace", "grid": (14, 14)}
EVA02 = {"kind": "block_reversed", "mode": "drop", "grid": (16, 16)}
SHEETS: dict[str, Sheet] = {
    "mae_b16": Sheet(
        "vit_base_patch16_224", 4096, 2.4e-3, 1600, 40, 0.0, (0.9, 0.95), 1e-8, None, 0.0, None,
        kind="random", hidden=147, mode="drop", grid=(14, 14),
    ),
    "mvp_b16": Sheet(
        "vit_base_patch16_224", 2048, 1.5e-3, 300, 10, 1e-5, (0.9, 0.999), 1e-8, 3.0, 0.1, 0.1, **BEIT
    ),
    "mvp_l16": Sheet(
        "vit_large_patch16_224", 2048, 1.5e-3, 300, 10, 1e-5, (0.9, 0.999), 1e-8, 3.0, 0.1, 1e-5, **BEIT
    ),
    "uta_b14": Sheet(
        "eva02_base_patch14_224", 4096, 1.5e-3, 150, 1, 1e-5, (0.9, 0.98), 1e-6, 3.0, 0.0, None, hidden=102, **EVA02
    ),
    "uta_l14": Sheet(
        "eva02_large_patch14_224", 4096, 1.5e-3, 150, 1, 1e-5, (0.9, 0.98), 1e-6, 3.0, 0.1, None, hidden=128, **EVA02
    ),
    "uta_g14": Sheet(
        "eva02_large_patch14_224", 4096, 1.5e-3, 150, 1, 1e-5, (0.9, 0.98), 1e-6, 3.0, 0.1, None, hidden=128, **EVA02
    ),
}  # fmt: skip
JOINT = {"mvp": 512, "uta": 1024}
"""Width of the teachers' joint spaces: CLIP-B/16, and EVA-01-CLIP-g-14-plus."""
PARAMETERS = {
    "mae_b16": (85.7e6, 85.9e6),
    "mvp_b16": (85.7e6, 85.9e6),
    "mvp_l16": (303e6, 304.5e6),
    "uta_b14": (85e6, 87e6),
    "uta_l14": (303e6, 305e6),
    "uta_g14": (1.0e9, 1.02e9),
}
ALL = [*PAPER, *(f"{row}_tiny{budget}" for row in METHODS for budget in ("", ":smoke"))]


def answers(recipe: Recipe) -> dict[str, Answers]:
    """What a teacher on the student's grid answers with."""
    student = recipe.models[recipe.student]
    text = isinstance(student, ClipText)
    joint, raw = (student.joint, student.joint) if text else (JOINT.get(recipe.method.name, 16), 768)
    grid = student.build(frozenset()).grid
    return {name: Answers(grid, joint, raw, 8192, 10) for name in recipe.method.named(Frozen)}


def count(module: nn.Module) -> int:
    """Parameters, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_paper_recipe_has_its_sheet() -> None:
    assert SHEETS.keys() == PARAMETERS.keys() == PAPER.keys() - {row.__name__ for row in FAMILIES}


@pytest.mark.parametrize("name", SHEETS)
def test_the_numbers_of_the_paper(name: str) -> None:
    recipe, sheet = recipes.recipe(name), SHEETS[name]
    model, (group,) = student_of(recipe), recipe.optimiser.groups.values()
    assert recipe.name == name
    assert (recipe.batch, recipe.optimiser.reference_batch, recipe.epochs) == (sheet.batch, sheet.batch, sheet.epochs)
    assert recipe.optimiser.rescaled(group.lr, recipe.batch) == pytest.approx(sheet.lr)
    assert (group.betas, group.eps, group.clip, group.weight_decay) == (sheet.betas, sheet.eps, sheet.clip, 0.05)
    assert group.layer_decay is None and group.freeze_until == 0 and group.match == ("*",)
    assert (model.arch, model.size, model.drop_path, model.layer_scale) == (
        sheet.arch,
        224,
        sheet.drop_path,
        sheet.layer_scale,
    )
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None
    assert (part.hide.kind, part.hide.count(sheet.grid), part.mode) == (sheet.kind, sheet.hidden, sheet.mode)


@pytest.mark.parametrize("name", SHEETS)
def test_the_learning_rate_over_the_run(name: str) -> None:
    recipe, sheet = recipes.recipe(name), SHEETS[name]
    samples = IMAGES["imagenet-21k" if name.startswith("uta") else "imagenet-1k"]
    total = recipe.total_steps(samples)
    assert total == pytest.approx(sheet.epochs * samples / sheet.batch, abs=1)
    warmup = round(total * sheet.warmup_epochs / sheet.epochs)
    assert recipe.schedule.warmup_steps(total) == warmup
    assert recipe.schedule.at(0, total, sheet.lr) == 0.0
    assert recipe.schedule.at(warmup - 1, total, sheet.lr) == pytest.approx(sheet.lr)
    middle = warmup + (total - warmup) // 2
    expected = sheet.end + (sheet.lr - sheet.end) * (1 + math.cos(math.pi * (middle - warmup) / (total - warmup))) / 2
    assert recipe.schedule.at(middle, total, sheet.lr) == pytest.approx(expected)
    assert recipe.schedule.at(total, total, sheet.lr) == pytest.approx(sheet.end, abs=1e-12)


def test_what_decays() -> None:
    """MAE decays its class and mask tokens; BEiT and EVA leave tokens and positions alone."""
    assert recipes.recipe("mae_b16").optimiser.groups["all"].no_decay == ()
    for name in ("mvp_b16", "mvp_l16", "uta_b14", "uta_l14", "uta_g14"):
        assert recipes.recipe(name).optimiser.groups["all"].no_decay == ("*.pos_embed", "*.cls_token")


def test_what_the_rows_explain() -> None:
    for name in ("mvp_b16", "mvp_l16", "uta_b14", "uta_l14", "uta_g14"):
        (term,) = recipes.recipe(name).method.terms.values()
        assert (term.target.kind, term.likelihood.kind, term.predictor.kind) == ("encoded", "gaussian", "linear")
        assert (term.target.space, term.likelihood.form) == ("joint", "cosine")
        assert term.target.rows == ("all+cls" if name.startswith("mvp") else "kept+cls")
    (term,) = recipes.recipe("mae_b16").method.terms.values()
    assert (term.target.kind, term.target.rows, term.target.norm) == ("pixels", "hidden", "patch")
    decoder = term.predictor
    assert (decoder.kind, decoder.width, decoder.depth, decoder.heads) == ("decoder", 512, 8, 16)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_on_the_meta_device(name: str) -> None:
    recipe = recipes.recipe(name)
    with torch.device("meta"):
        encoder = student_of(recipe).build(frozenset())
    least, most = PARAMETERS[name]
    assert least < count(encoder) < most
    assert (encoder.grid, encoder.size) == (SHEETS[name].grid, 224)
    assert all(parameter.is_meta for parameter in encoder.parameters())


def test_mae_has_as_many_parameters_as_the_papers() -> None:
    """111,907,840 with the fixed positions of encoder and decoder."""
    recipe = recipes.recipe("mae_b16")
    with torch.device("meta"):
        objective = Objective(recipe.method, recipe.models, {})
    positions = objective.predictor("pixels").positions
    assert isinstance(positions, torch.Tensor)
    assert count(objective) + positions.numel() == 111_907_840
    fixed = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    assert fixed == ["encoders.student.backbone.pos_embed"]


@pytest.mark.parametrize(("name", "feed_forward"), [("uta_b14", 2048), ("uta_l14", 2730), ("uta_g14", 4096)])
def test_utas_backbone(name: str, feed_forward: int) -> None:
    """EVA-02's blocks: SwiGLU with its own norm, rotary positions beside learned ones, no bias on the keys."""
    with torch.device("meta"):
        backbone = student_of(recipes.recipe(name)).build(frozenset()).backbone
    block = backbone.blocks[0]
    assert block.mlp.fc2.in_features == feed_forward
    assert isinstance(block.mlp.norm, nn.LayerNorm) and isinstance(block.attn.norm, nn.Identity)
    assert backbone.rope is not None and backbone.pos_embed.shape == (1, 257, backbone.embed_dim)
    assert block.attn.q_proj.bias is not None and block.attn.v_proj.bias is not None
    assert block.attn.k_proj.bias is None and block.norm1.eps == 1e-6
    shapes = {"uta_b14": (768, 12, 12), "uta_l14": (1024, 24, 16), "uta_g14": (1408, 40, 16)}
    assert (backbone.embed_dim, len(backbone.blocks), block.attn.num_heads) == shapes[name]


@pytest.mark.parametrize("name", SHEETS)
def test_two_steps_at_full_width(name: str) -> None:
    """MAE: targets of variance 1, guesses of variance 2 * 512 / (512 + 768) = 0.8 from a fresh Xavier projection of
    normed rows. The others: the cosine of rows that know nothing of one another."""
    recipe = recipes.recipe(name)
    done, still = steps(recipe, next(iter(answers(shallow(recipe)).values()), None))
    assert done[0].losses.total.item() == pytest.approx(1.8 if name.startswith("mae") else 0.0, abs=0.15)
    assert still == []


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_survives_yaml(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = recipes.recipe(name)
    file = tmp_path_factory.mktemp("recipe") / "my.yaml"
    file.write_text(to_yaml(recipe))
    assert from_plain(Recipe, read_yaml(file)) == recipe == recipes.recipe(str(file))
    resolved = resolve(recipe, {})
    assert from_plain(Recipe, read_yaml_text(to_yaml(resolved), file)) == resolved
    assert all(view.size is not None for view in resolved.method.views.values())


def read_yaml_text(text: str, file):
    """Plain values of YAML text, by way of a file."""
    file.write_text(text)
    return read_yaml(file)


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_builds_on_the_meta_device(name: str) -> None:
    recipe = resolve(recipes.recipe(name), {})
    with torch.device("meta"):
        objective = Objective(recipe.method, recipe.models, answers(recipe), 10)
    Optimisers(objective.named_parameters(), recipe.optimiser, recipe.batch)
    assert set(recipe.method.named(Trained)) == set(recipe.models)


def test_names_and_budgets() -> None:
    assert set(recipes.names()) == {f"{row}_tiny" for row in METHODS} | set(PAPER)
    smoke, demo = recipes.recipe("mae_tiny:smoke"), recipes.recipe("mae_tiny")
    assert smoke.steps is not None and demo.steps is not None and smoke.steps < demo.steps
    assert recipes.recipe("mae_tiny:demo") == demo
    assert {
        row
        for row in METHODS
        if recipes.recipe(f"{row}_tiny").method.terms.keys() != fewer(METHODS[row], 2).terms.keys()
    } == set()


@pytest.mark.parametrize(
    ("typed", "meant"), [("mae_b15", "mae_b16"), ("uta_tinny", "uta_tiny"), ("mae_tiny:fast", "mae_tiny")]
)
def test_an_unknown_name_is_told_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"no recipe '{typed}'; did you mean '{meant}'"):
        recipes.recipe(typed)


@pytest.mark.parametrize("name", PAPER)
def test_the_lab_note_of_a_paper_recipe(name: str) -> None:
    note = PAPER[name].__doc__ or ""
    assert "arXiv:" in note and "Data" in note and "Expected:" in note
