"""BEiT and PeCo: cross-entropy over codes, a run of VQ-KD as their tokenizer, and their papers' numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from full_width import steps
from onestage import recipes
from onestage.encoders import Vit
from onestage.likelihood import Categorical
from onestage.objective import Answers, Method
from onestage.predictors import QuantisedPredictor
from onestage.recipes.coded import CODED_ROWS
from onestage.spec import UserError, from_plain, to_plain
from onestage.teachers import load
from onestage.types import Target
from stepping import brief_codes, brief_teacher


def test_categorical_is_the_cross_entropy_of_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    guess = torch.randn(2, 3, 5, generator=draw).requires_grad_()
    numbers = torch.randint(5, (2, 3), generator=draw)
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])
    loss = Categorical().build(5)(guess, Target(numbers.unsqueeze(-1).float(), None, weight))
    loss.backward()
    total, slope = 0.0, torch.zeros(2, 3, 5, dtype=torch.float64)
    for sample in range(2):
        for place in range(3):
            row, share = guess[sample, place].detach().double(), float(weight[sample, place] / weight.sum())
            exponents = [math.exp(value) for value in row.tolist()]
            truth = int(numbers[sample, place])
            total -= share * math.log(exponents[truth] / sum(exponents))
            for code in range(5):
                slope[sample, place, code] = share * (exponents[code] / sum(exponents) - (code == truth))
    assert loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(guess.grad.double(), slope, rtol=1e-4, atol=1e-6)


def test_a_run_of_vqkd_numbers_cells_by_its_code_book(tmp_path: Path) -> None:
    run = brief_teacher(tmp_path)
    teacher = load(brief_codes(run))
    pixels = torch.rand(2, 3, teacher.size, teacher.size)
    codes, raw, (encoder, head) = teacher.tokens(pixels, "codes"), teacher.tokens(pixels, "raw"), teacher.parts()[:2]
    assert isinstance(head, QuantisedPredictor) and not encoder.training
    assert teacher.codes == teacher.width("codes") == 24
    for sample in range(2):
        for place, row in enumerate(raw.rows[sample]):
            narrow = head.narrow(row)
            far = [(narrow / narrow.norm() - code).norm().item() for code in head.book.codes]
            assert int(codes.rows[sample, place, 0]) == far.index(min(far))
    with pytest.raises(UserError, match=r"it has no code book.*vqkd_tiny"):
        load(run).width("codes")


def test_codes_and_their_likelihood_go_together() -> None:
    plain = to_plain(recipes.recipe("beit_b16").method)
    plain["terms"]["codes"]["target"]["space"] = "raw"
    with pytest.raises(UserError, match="go together"):
        from_plain(Method, plain)
    plain["terms"]["codes"]["target"] |= {"space": "codes", "norm": "layer"}
    with pytest.raises(UserError, match="leave norm, fit and blocks out"):
        from_plain(Method, plain)


@pytest.mark.parametrize("row", [row for row in CODED_ROWS if row.__name__ in {"beit_b16", "beit_l16", "peco_b16"}])
def test_the_numbers_of_beit(row: object) -> None:
    recipe = recipes.recipe(row.__name__)
    model, (group,) = recipe.models["student"], recipe.optimiser.groups.values()
    assert isinstance(model, Vit)
    assert (recipe.batch, recipe.epochs, group.lr, group.clip, group.betas) == (2048, 800, 1.5e-3, 3.0, (0.9, 0.999))
    assert (model.positions, model.drop_path) == ("relative", 0.1)
    assert model.layer_scale == (1e-5 if "_l" in recipe.name else 0.1)
    assert recipe.schedule.warmup_steps(8000) == 100 and recipe.schedule.at(8000, 8000, group.lr) == 1e-5
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and part.hide.count((14, 14)) == 75


@pytest.mark.parametrize("name", ["beit_b16", "peco_b16"])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipes.recipe(name), Answers((14, 14), 512, 768, 8192))
    assert done[0].losses.total.item() == pytest.approx(math.log(8192), abs=0.5)
    assert still == []
