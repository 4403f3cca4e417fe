"""Contrastive fine-tuning at paper size: the sheet's numbers, what the towers start from, and steps at full width."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

from full_width import shallow, steps, student_of
from onestage import pretraining
from onestage.encoders import Vit
from onestage.encoders.resample import resample
from onestage.engine.optimiser import Optimisers
from onestage.objective import Objective
from onestage.recipes import recipe
from onestage.recipes.tuned import OPENAI, TUNED_ROWS
from onestage.teachers import load
from small import small
from stepping import brief_teacher

SHEETS = {
    "uta_b16_tuned": (2e9, 2e-4, 0.75),
    "uta_l14_tuned": (4e9, 4e-4, 0.85),
    "uta_l14_336": (0.2e9, 4e-4, 0.85),
    "uta_g14_tuned": (2e9, 4e-4, 0.85),
    "uta_g14_336": (1e9, 4e-4, 0.85),
    "clip_l14_tuned": (2e9, 4e-4, 0.85),
    "clip_l14_tuned_masked": (4e9, 4e-4, 0.85),
    "uta_l14_clip_tuned": (0.8e9, 4e-4, 0.85),
}
"""Pairs seen, learning rate and layer decay of the image tower."""
RIVALS = {"eva02_clip_b16": (8e9, 2e-4, 0.75), "eva02_clip_l14": (4e9, 4e-4, 0.85)}
ROLLED = {"uta_b16_tuned": "uta_b14", "uta_l14_336": "uta_l14_tuned"}
"""Recipes that start from another patch or size, and from what."""


def test_every_recipe_has_a_sheet() -> None:
    assert {make.__name__ for make in TUNED_ROWS} == SHEETS.keys() | RIVALS.keys() | {"uta_l14_clip"}


@pytest.mark.parametrize("name", SHEETS)
def test_numbers_are_those_of_the_appendix(name: str) -> None:
    made, (pairs, lr, decay) = recipe(name), SHEETS[name]
    groups = made.optimiser.groups
    assert (made.batch, made.schedule.kind) == (49_152, "cosine")
    assert made.total_steps(1) * made.batch == pytest.approx(pairs, rel=2e-4)
    assert {group.kind for group in groups.values()} == {"lamb"}
    assert {group.weight_decay for group in groups.values()} == {0.05}
    assert (made.optimiser.rescaled(groups["image"].lr, made.batch), groups["image"].layer_decay) == (lr, decay)
    likelihood = made.method.terms["pair"].likelihood
    assert likelihood.kind == "boltzmann"
    assert (likelihood.temperature, likelihood.temperature_is) == (0.01, "fixed")


@pytest.mark.parametrize("name", RIVALS)
def test_numbers_are_those_of_eva_clip(name: str) -> None:
    made, (pairs, lr, decay) = recipe(name), RIVALS[name]
    total, groups = made.total_steps(1), made.optimiser.groups
    assert (made.batch, total * made.batch) == (131_072, pytest.approx(pairs, rel=1e-4))
    assert made.schedule.warmup_steps(total) == 2000
    assert [groups[key].lr for key in ("image", "text", "rest")] == [lr, lr / 10, 5e-4]
    assert [groups[key].layer_decay for key in ("image", "text", "rest")] == [decay, 0.75, None]
    assert {(group.betas, group.eps, group.clip, group.weight_decay) for group in groups.values()} == {
        ((0.9, 0.999), 1e-8, 5.0, 0.05)
    }
    block = student_of(shallow(made)).build(frozenset()).backbone.blocks[0]
    assert isinstance(block.attn.norm, torch.nn.LayerNorm)  # EVA-CLIP has a norm inside attention, UTA has none


@pytest.mark.parametrize("name", ["uta_b16_tuned", "clip_l14_tuned_masked", "eva02_clip_b16"])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipe(name))
    assert len(done) == 2
    assert still == []


@pytest.mark.parametrize("name", ROLLED)
def test_every_weight_of_the_image_tower_has_a_start(name: str) -> None:
    made, before = shallow(recipe(name)), shallow(recipe(ROLLED[name]))
    encoder = student_of(made).build(frozenset())
    given, own = student_of(before).build(frozenset()).state_dict(), encoder.state_dict()
    found = {key: _started(key, given[key], value, encoder.grid) for key, value in own.items()}
    assert {key for key, value in own.items() if given[key].shape != value.shape} <= {
        "backbone.pos_embed",
        "backbone.patch_embed.proj.weight",
    }
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in own.items()}
    assert made.method.terms["pair"].predictor == recipe("uta_b14").method.terms["align"].predictor


def _started(key: str, given: Tensor, own: Tensor, grid: tuple[int, int]) -> Tensor:
    if given.shape == own.shape:
        return given
    found = resample(key, given, own.shape, grid)
    assert found is not None, key
    return found


def test_text_towers_are_those_of_the_teachers() -> None:
    for name, model in (("uta_b16_tuned", "EVA01-g-14-plus"), ("uta_l14_clip_tuned", "ViT-L-14-quickgelu")):
        text, config = recipe(name).models["text"], open_clip.get_model_config(model)
        assert text.kind == "clip_text" and config is not None
        theirs = [config["text_cfg"][key] for key in ("width", "layers", "heads", "context_length", "vocab_size")]
        assert [text.width, text.depth, text.heads, text.context, text.vocabulary] == theirs
        assert (text.joint, text.activation == "quick_gelu") == (config["embed_dim"], config.get("quick_gelu", False))


def test_the_controls_see_as_many_samples_and_differ_in_what_they_hide() -> None:
    taught, tuned = recipe("uta_l14_clip"), recipe("uta_l14_clip_tuned")
    whole, masked = recipe("clip_l14_tuned"), recipe("clip_l14_tuned_masked")
    pairs = taught.total_steps(14_197_122) * taught.batch + tuned.total_steps(1) * tuned.batch
    assert pairs == pytest.approx(whole.total_steps(1) * whole.batch, rel=0.05)
    assert list(taught.teachers.values()) == [OPENAI]
    assert open_clip.get_pretrained_cfg(*OPENAI.removeprefix("open_clip:").split("/"))
    (part,) = masked.method.inputs["image"].parts.values()
    assert part.hide is not None and (part.hide.kind, part.hide.count((16, 16)), part.mode) == (
        "block_reversed",
        128,
        "drop",
    )
    assert whole.method.inputs["image"].parts["image"].hide is None
    with torch.device("meta"):
        assert Objective(whole.method, whole.models, {}, 0).encoder("student").grid == (16, 16)


def test_the_tiny_tuning_is_made_for_a_tiny_student_and_its_teachers_texts() -> None:
    made, student, teacher = (recipe(f"{row}_tiny") for row in ("uta_tuned", "uta", "clip"))
    images = teacher.models["student"]
    assert isinstance(images, Vit)
    assert made.models["student"] == dataclasses.replace(student_of(student), size=images.size)
    assert made.models["text"] == teacher.models["text"]
    assert made.method.terms["pair"].predictor == student.method.terms["align"].predictor
    assert {group.layer_decay for group in made.optimiser.groups.values()} == {0.75}
    assert made.steps is not None and teacher.steps is not None and made.steps * 3 == teacher.steps
    with torch.device("meta"):
        Optimisers(Objective(made.method, made.models, {}, 0).named_parameters(), made.optimiser, made.batch)


def test_tuning_goes_on_from_a_student_whole(tmp_path: Path) -> None:
    """Its images and its head as the student has them, and texts as its teacher has them; so it starts as good."""
    teacher = brief_teacher(tmp_path)
    pretraining.start(small("uta", steps=2, teachers={"teacher": teacher}), tmp_path / "uta", [])
    made, said = small("uta_tuned", data="scenes", steps=1, init=str(tmp_path / "uta")), list[str]()
    pretraining.start(made, tmp_path / "tuned", [], said.append)
    assert any("tensors loaded, 0 left as they were" in line for line in said)
    before, student, after = load(teacher), load(str(tmp_path / "uta")), load(f"{tmp_path / 'tuned'}@0")
    pixels, words = torch.rand(2, 3, 32, 32), ["a red seven", "one"]
    torch.testing.assert_close(after.tokens(pixels, "joint").pooled, student.tokens(pixels, "joint").pooled)
    torch.testing.assert_close(after.text(words), before.text(words))
    assert after.scale == pytest.approx(100)
