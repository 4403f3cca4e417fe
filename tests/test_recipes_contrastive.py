"""Paper-size contrastive recipes: the sheet's numbers, and two steps at full width."""

from __future__ import annotations

import math

import pytest

from full_width import steps
from onestage.encoders import ClipText, Vit
from onestage.objective import Answers, Objective
from onestage.recipes import recipe
from onestage.recipes.contrastive import CONTRASTIVE_ROWS

SHEETS = {
    "clip_b16": (32768, 5e-4, (0.9, 0.98), 0.2, 12.8e9),
    "clip_l14": (32768, 4e-4, (0.9, 0.98), 0.2, 12.8e9),
    "siglip_b16": (32768, 1e-3, (0.9, 0.95), 1e-4, 9e9),
    "siglip_l16": (32768, 1e-3, (0.9, 0.95), 1e-4, 9e9),
    "flip_b16": (65536, 1.024e-3, (0.9, 0.95), 0.2, 12.8e9),
    "flip_l16": (65536, 1.024e-3, (0.9, 0.95), 0.2, 12.8e9),
    "flip_b16_unmasked": (65536, 1.024e-5, (0.9, 0.95), 0.2, 128e6),
    "lit_b16": (16384, 1e-3, (0.9, 0.999), 0.01, 983e6),
    "lit_l16": (16384, 1e-3, (0.9, 0.999), 0.01, 983e6),
}
"""Batch, learning rate, betas, decay, pairs seen."""


@pytest.mark.parametrize("name", SHEETS)
def test_numbers_are_the_sheets(name: str) -> None:
    made = recipe(name)
    group = made.optimiser.groups["all"]
    batch, lr, betas, decay, pairs = SHEETS[name]
    assert (made.batch, group.betas, group.weight_decay) == (batch, betas, decay)
    assert made.optimiser.rescaled(group.lr, made.batch) == pytest.approx(lr)
    assert made.total_steps(400_000_000) * made.batch == pytest.approx(pairs, rel=2e-3)


def test_every_recipe_has_a_sheet() -> None:
    assert {make.__name__ for make in CONTRASTIVE_ROWS} == SHEETS.keys()


@pytest.mark.parametrize("name", ["clip_b16", "siglip_b16", "flip_b16", "flip_b16_unmasked"])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipe(name))
    assert len(done) == 2
    assert still == []


def test_two_steps_of_lit_at_full_width() -> None:
    """Two pairs that no text is told apart by yet; nothing but the text tower and the temperature is trained."""
    done, still = steps(recipe("lit_b16"), Answers((14, 14), 768, 768))
    assert done[0].losses.total.item() == pytest.approx(math.log(2), abs=0.5)
    assert still == []


def test_flip_hides_half_and_its_tuning_nothing() -> None:
    part = recipe("flip_b16").method.inputs["image"].parts["image"]
    assert part.hide is not None and part.mode == "drop"
    assert recipe("flip_b16_unmasked").method.inputs["image"].parts["image"].hide is None
    student = recipe("flip_b16").models["student"]
    assert isinstance(student, Vit) and (student.pool, student.positions) == ("all", "sincos")


def test_siglip_compares_its_pooled_row_as_it_is() -> None:
    made = recipe("siglip_b16")
    text = made.models["text"]
    assert isinstance(text, ClipText) and text.joint == 768
    objective = Objective(recipe("siglip_tiny").method, recipe("siglip_tiny").models, {}, 0)
    assert list(objective.predictor("pair").parameters()) == []
