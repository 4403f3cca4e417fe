"""M3I's rows at paper size: the numbers of SiameseIM's setting, and real steps at full width."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from onestage import recipes
from onestage.encoders import ClipText, Vit
from onestage.engine.optimiser import Optimisers
from onestage.engine.step import Step
from onestage.objective import Objective
from onestage.pretraining import Recipe
from onestage.recipes.m3i import M3I_ROWS
from onestage.types import Batch, Geometry, View, Words

NAMES = [row.__name__ for row in M3I_ROWS]


def shallow(recipe: Recipe) -> Recipe:
    """Two blocks deep, its decoders one."""
    models = {name: dataclasses.replace(model, depth=2) for name, model in recipe.models.items()}
    terms = {
        name: dataclasses.replace(term, predictor=dataclasses.replace(term.predictor, depth=1))
        if term.predictor.kind in {"decoder", "relative"}
        else term
        for name, term in recipe.method.terms.items()
    }
    return dataclasses.replace(recipe, models=models, method=dataclasses.replace(recipe.method, terms=terms))


@pytest.mark.parametrize("name", NAMES)
def test_the_setting_is_siamese_ims(name: str) -> None:
    recipe = recipes.recipe(name)
    student, body, stem = recipe.models["student"], *(recipe.optimiser.groups[group] for group in ("all", "stem"))
    assert isinstance(student, Vit) and (student.arch, student.size) == ("vit_base_patch16_224", 224)
    assert student.positions == "sincos" and (recipe.batch, recipe.optimiser.reference_batch) == (4096, 4096)
    assert (body.lr, body.betas, body.weight_decay, body.clip) == (1e-3, (0.9, 0.95), 0.05, 1.0)
    assert stem.match == ("encoders.student.backbone.patch_embed.*",) and stem.freeze_until > 10**9
    assert recipe.epochs == {"m3i_text_b16": 25, "m3i_both_b16": 30, "mixmim_b16": 300}.get(name, 400)
    assert ("text" in recipe.models) == recipe.method.needs_texts
    for role in recipe.method.encoders.values():
        if role.kind == "ema":
            assert (role.momentum, role.end, role.when) == (0.995, 1.0, "before")


@pytest.mark.parametrize(("name", "hidden"), [("siamese_feature_b16", 118), ("m3i_b16", 98), ("mim_pixel_b16", 147)])
def test_as_many_cells_are_hidden_as_published(name: str, hidden: int) -> None:
    asked = next(iter(recipes.recipe(name).method.inputs.values()))
    hide = asked.mix or next(iter(asked.parts.values())).hide
    assert hide is not None and hide.count((14, 14)) == hidden


def batch_of_two(recipe: Recipe, objective: Objective) -> Batch:
    """Two images of noise with texts and labels, cropped in different places."""
    noise, size = torch.Generator().manual_seed(2), 224
    boxes = {"view1": [0.0, 0.0, 100.0, 120.0], "view2": [20.0, 30.0, 80.0, 64.0]}
    views = {
        name: View(
            torch.rand(2, 3, size, size, generator=noise),
            Geometry(torch.tensor([boxes[name]] * 2), torch.tensor([False, True])),
        )
        for name in recipe.method.views
    }
    hidden = {}
    for name, asked in recipe.method.inputs.items():
        grid = objective.encoder(asked.encoder).grid
        hides = {name: asked.mix} | {f"{name}/{key}": part.hide for key, part in asked.parts.items()}
        for key, hide in hides.items():
            if hide is not None:
                draws = [hide.draw(np.random.default_rng(sample), grid) for sample in range(2)]
                hidden[key] = torch.from_numpy(np.stack(draws))
    words = Words(torch.randint(1, 400, (2, 77), generator=noise), torch.arange(2))
    return Batch(torch.arange(2), views, hidden, words, torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["siamese_feature_b16", "m3i_both_b16", "mixmim_b16"])
def test_two_steps_at_full_width(name: str) -> None:
    recipe = shallow(recipes.recipe(name))
    torch.manual_seed(0)
    objective = Objective(recipe.method, recipe.models, {}, classes=10)
    objective.training_mode()
    optimisers = Optimisers(objective.named_parameters(), recipe.optimiser, recipe.batch)
    step = Step(objective, optimisers, lambda ask, batch: pytest.fail("no teacher"), "fp32", 1, torch.device("cpu"))
    batch = batch_of_two(recipe, objective)
    student = objective.encoder("student")
    stem = next(p for n, p in student.named_parameters() if "patch_embed" in n).detach().clone()
    before = next(p for n, p in student.named_parameters() if "blocks.1." in n and p.ndim == 2).detach().clone()
    for number in (1000, 1001):
        optimisers.set_lr(recipe.schedule, number, 2000)
        stepped = step(batch, number, 2000)
        assert not stepped.skipped and torch.isfinite(stepped.losses.total)
    assert torch.equal(stem, next(p for n, p in student.named_parameters() if "patch_embed" in n))
    assert not torch.equal(before, next(p for n, p in student.named_parameters() if "blocks.1." in n and p.ndim == 2))


def test_the_text_tower_is_clips() -> None:
    text = recipes.recipe("m3i_text_b16").models["text"]
    assert isinstance(text, ClipText)
    assert (text.depth, text.width, text.heads, text.context, text.joint) == (12, 512, 8, 77, 512)
    with torch.device("meta"):
        assert sum(isinstance(module, nn.MultiheadAttention) for module in text.build(frozenset()).modules()) == 12
