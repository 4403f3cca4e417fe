"""PeCo's tokenizer: pictures that a frozen encoder compares, its code book as a teacher, and its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from full_width import steps
from onestage import pretraining, recipes
from onestage.encoders import Vit
from onestage.methods import METHODS
from onestage.objective import Answers, Method, add
from onestage.predictors import Drawn
from onestage.spec import UserError, from_plain, to_plain
from onestage.teachers import load
from onestage.types import Also
from small import lean, looking, small
from stepping import brief_teacher
from test_objective import answers_for, batch_for, objective_for

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_pictures_are_compared_as_the_teacher_sees_them() -> None:
    """Patches put back pixel by pixel are what it sees; each block costs minus the mean cosine, and pixels learn it."""
    row = lean(METHODS["peco_vq"])
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    represented = objective.represent(batch, answers)
    losses, ((_, answer),) = objective.score(represented), answers.items()
    guess = represented.guesses["pixels"]
    pixels = torch.zeros_like(batch.views["view1"].pixels)
    for cell in range(36):
        for place in range(8 * 8 * 3):
            y, x, channel = place // 24, place // 3 % 8, place % 3
            value = guess[:, cell, place] * DEVIATION[channel] + MEAN[channel]
            pixels[:, channel, 8 * (cell // 6) + y, 8 * (cell % 6) + x] = value
    seen, total = looking(8, 40)(pixels, "raw", Also(layers=10)), 0.0
    for block in (3, 6, 9, 12):
        found, true = seen.layers[block - 13].rows, answer.layers[block - 13].rows
        expected = -functional.cosine_similarity(found, true, dim=-1).mean()
        torch.testing.assert_close(losses.terms[f"seen{block}"], expected, rtol=1e-4, atol=1e-5)
        total = total + 2 * expected
    weight = objective.predictor("pixels").head[2].weight
    slope = torch.autograd.grad(losses.total - losses.terms["pixels"], weight, retain_graph=True)[0]
    torch.testing.assert_close(slope, torch.autograd.grad(total, weight)[0], rtol=1e-3, atol=1e-6)
    assert slope.abs().max() > 0


def test_a_frozen_run_gives_gradients_for_pixels_alone(tmp_path: Path) -> None:
    teacher = load(brief_teacher(tmp_path))
    pixels = torch.rand(2, 3, teacher.size, teacher.size).requires_grad_()
    seen, told = teacher.look(pixels, "raw", Also(layers=2)), teacher.tokens(pixels, "raw", Also(layers=2))
    torch.testing.assert_close(seen.layers[0].rows, told.layers[0].rows)
    assert not told.rows.requires_grad
    seen.layers[0].rows.square().sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0
    assert all(parameter.grad is None for part in teacher.parts() for parameter in part.parameters())


@torch.no_grad()
def test_a_run_of_peco_vq_numbers_cells_by_its_code_book(tmp_path: Path) -> None:
    with torch.enable_grad():
        recipe = small("peco_vq", steps=2, teachers={"teacher": brief_teacher(tmp_path)})
        pretraining.start(recipe, tmp_path / "codes", [])
        pretraining.start(small("peco", steps=1, teachers={"teacher": str(tmp_path / "codes")}), tmp_path / "peco", [])
    teacher = load(str(tmp_path / "codes"))
    pixels = torch.rand(2, 3, 32, 32)
    codes, raw = teacher.tokens(pixels, "codes"), teacher.tokens(pixels, "raw")
    assert teacher.codes == teacher.width("codes") == 24 and not teacher.has_joint and teacher.book in teacher.parts()
    for sample in range(2):
        for place, row in enumerate(raw.rows[sample]):
            narrow = functional.normalize(teacher.book.narrow(row), dim=0)
            far = [(narrow - code).norm().item() for code in teacher.book.book.codes]
            assert int(codes.rows[sample, place, 0]) == far.index(min(far))


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    for path, value, told in (
        (("pixels", "target", "norm"), "patch", "no term before it"),
        (("seen3", "predictor", "of"), "seen6", "no term before it"),
        (("seen3", "target", "norm"), "layer", "rows of one block of a frozen encoder"),
        (("seen3", "target", "blocks"), [1, 2], "rows of one block"),
    ):
        plain = to_plain(METHODS["peco_vq"])
        term, part, leaf = path
        plain["terms"][term][part][leaf] = value
        with pytest.raises(UserError, match=told):
            from_plain(Method, plain)
    row = lean(METHODS["peco_vq"])
    objective = objective_for(row)
    objective.looks["teacher"] = None
    with pytest.raises(UserError, match="'teacher' gives no gradients"):
        objective(batch_for(row), answers_for(row))


def test_in_a_sum_it_follows_its_own_pixels() -> None:
    summed = add([(1.0, METHODS["mae"]), (1.0, METHODS["peco_vq"])])
    name = next(name for name in summed.terms if name.endswith("pixels") and summed.terms[name].target.norm == "none")
    drawn = [term.predictor for term in summed.terms.values() if isinstance(term.predictor, Drawn)]
    assert [one.of for one in drawn] == [name] * 4 and name != "pixels"


def test_two_steps_at_full_width_and_the_numbers_of_peco_vq() -> None:
    recipe = recipes.recipe("peco_vq_b16")
    model, (group,) = recipe.models["student"], recipe.optimiser.groups.values()
    assert isinstance(model, Vit) and (recipe.batch, recipe.epochs, group.lr) == (512, 100, 5e-5)
    quantised = recipe.method.terms["pixels"].predictor
    assert (quantised.codes, quantised.values, quantised.decay) == (8192, 256, 0.99)
    assert [term.target.blocks for name, term in recipe.method.terms.items() if name != "pixels"] == [
        (10,),
        (7,),
        (4,),
        (1,),
    ]
    done, still = steps(recipe, Answers((14, 14), 512, 768, 8192, look=looking(16, 768)))
    assert done[0].losses.terms["seen12"].item() == pytest.approx(0, abs=0.2) and still == []
