"""VideoMAE at paper size: the numbers of its code, and real steps at full width."""

from __future__ import annotations

import dataclasses

import pytest

from full_width import steps, student_of
from onestage import recipes
from onestage.predictors import Decoder
from onestage.recipes.video import VIDEO_ROWS
from onestage.views import Frames


@pytest.mark.parametrize(
    ("name", "batch", "decoder"), [("video_mae_b16", 2048, (384, 4, 6)), ("video_mae_l16", 512, (512, 12, 8))]
)
def test_the_numbers_of_the_code(name: str, batch: int, decoder: tuple[int, int, int]) -> None:
    recipe = recipes.recipe(name)
    model, (group,), (term,) = student_of(recipe), recipe.optimiser.groups.values(), recipe.method.terms.values()
    assert (recipe.batch, recipe.epochs, group.betas, group.weight_decay) == (batch, 1600, (0.9, 0.95), 0.05)
    rates = [recipe.schedule.at(step, 16_000, group.lr) for step in (400, 16_000)]
    assert rates == pytest.approx([1.5e-4 * batch / 256, 1e-5 * batch / 256])
    assert (model.frames, model.tubelet, model.size, model.positions, model.class_tokens) == (16, 2, 224, "sines", 0)
    hide = recipe.method.inputs["kept"].parts["image"].hide
    assert hide is not None and hide.count((8 * 14, 14)) == 8 * 176
    assert isinstance(term.predictor, Decoder)
    assert (term.predictor.width, term.predictor.depth, term.predictor.heads) == decoder
    frames = recipe.method.views["view1"].frames
    assert frames is not None
    times = frames.times(0.0, 0.0, 10.0)
    assert len(times) == 16 and times[1] - times[0] == pytest.approx(4 / 30)


def test_two_steps_at_full_width() -> None:
    """Of four frames. Every value of a target has variance 1, and the first guesses a little of their own."""
    assert [row.__name__ for row in VIDEO_ROWS] == ["video_mae_b16", "video_mae_l16"]
    recipe = recipes.recipe("video_mae_b16")
    view = dataclasses.replace(recipe.method.views["view1"], frames=Frames(count=4))
    short = dataclasses.replace(student_of(recipe), frames=4)
    method = dataclasses.replace(recipe.method, views={"view1": view})
    done, still = steps(dataclasses.replace(recipe, method=method, models={"student": short}))
    assert still == [] and float(done[0].losses.total) == pytest.approx(1.6, abs=0.6)
