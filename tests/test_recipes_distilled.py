"""EVA-01, EVA-02, FD and VQ-KD at paper size: the numbers of their papers, and real steps at full width."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

from full_width import steps, student_of
from onestage import recipes
from onestage.encoders import Vit
from onestage.methods import METHODS
from onestage.objective import Answers
from onestage.recipes.distilled import DISTILLED_ROWS
from test_objective import answers_for, batch_for, objective_for


class Sheet(NamedTuple):
    """What the papers and their code say."""

    batch: int
    lr: float
    epochs: float
    warm: float
    ends: tuple[float, float]
    betas: tuple[float, float]
    clip: float | None
    drop_path: float
    hidden: int
    loss: tuple[float, float]
    """At the start, and how far chance may lead from it (FD: 0.247 and what its head's own variance adds)."""
    million: float
    """Parameters of the encoder."""


CLIP_L, EVA_G, CLIP_B = Answers((16, 16), 768, 1024), Answers((16, 16), 1024, 1408), Answers((14, 14), 512, 768)
EVA = {"betas": (0.9, 0.98), "ends": (1e-6, 1e-5), "clip": 3.0, "hidden": 105, "loss": (0.0, 0.1), "epochs": 150}
FD = {"betas": (0.9, 0.999), "ends": (2e-6, 2e-5), "clip": 3.0, "hidden": 0, "loss": (0.32, 0.03), "epochs": 300}
SHEETS = {
    "eva_b14": Sheet(4096, 1e-3, warm=2, drop_path=0.0, million=85.7, **EVA),
    "eva_l14": Sheet(4096, 2.4e-3, 150, 40, (0.0, 0.0), (0.9, 0.95), None, 0.0, 192, (0.0, 0.1), 303),
    "eva_g14": Sheet(4096, 1e-3, warm=2, drop_path=0.1, million=1011, **EVA),
    "eva02_ti14": Sheet(4000, 3e-3, warm=1, drop_path=0.0, million=5.5, **EVA | {"epochs": 240}),
    "eva02_s14": Sheet(4000, 3e-3, warm=1, drop_path=0.0, million=21.6, **EVA | {"epochs": 240}),
    "eva02_b14": Sheet(2048, 1.5e-3, warm=1, drop_path=0.0, million=85.8, **EVA),
    "eva02_l14": Sheet(2048, 1.5e-3, warm=1, drop_path=0.1, million=303, **EVA),
    "fd_b16": Sheet(2048, 1.2e-3, warm=10, drop_path=0.2, million=85.7, **FD),
    "fd_b16_dino": Sheet(2048, 1.2e-3, warm=10, drop_path=0.3, million=85.7, **FD),
    "fd_b16_deit": Sheet(2048, 1.2e-3, warm=10, drop_path=0.3, million=85.7, **FD),
    "fd_l14": Sheet(2048, 1.2e-3, warm=10, drop_path=0.3, million=303, **FD),
    "vqkd_b16": Sheet(512, 5e-5, 100, 10, (0.0, 1e-5), (0.9, 0.99), None, 0.0, 0, (0.05, 0.1), 85.7),
}
TEACHERS = {name: EVA_G if "02" in name else CLIP_B if "b16" in name else CLIP_L for name in SHEETS}


def test_every_recipe_has_its_sheet() -> None:
    assert SHEETS.keys() == {row.__name__ for row in DISTILLED_ROWS}


@pytest.mark.parametrize("name", SHEETS)
def test_the_numbers_of_the_paper(name: str) -> None:
    recipe, sheet = recipes.recipe(name), SHEETS[name]
    model, (group,) = student_of(recipe), recipe.optimiser.groups.values()
    assert (recipe.name, recipe.batch, recipe.optimiser.reference_batch) == (name, sheet.batch, sheet.batch)
    decay = 1e-4 if name.startswith("vqkd") else 0.05
    assert (recipe.epochs, group.lr, group.clip, group.weight_decay) == (sheet.epochs, sheet.lr, sheet.clip, decay)
    assert (model.size, model.drop_path, group.betas) == (224, sheet.drop_path, sheet.betas)
    assert recipe.schedule.warmup_steps(15_000) == round(15_000 * sheet.warm / sheet.epochs)
    assert recipe.schedule.at(0, 15_000, group.lr) == pytest.approx(sheet.ends[0])
    assert recipe.schedule.at(15_000, 15_000, group.lr) == pytest.approx(sheet.ends[1])
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert (0 if part.hide is None else part.hide.count((16, 16))) == sheet.hidden


@pytest.mark.parametrize("name", SHEETS)
def test_the_students_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        encoder = student_of(recipes.recipe(name)).build(frozenset())
    assert encoder.grid == TEACHERS[name].grid
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(SHEETS[name].million * 1e6, rel=0.005)


def test_the_blocks_of_eva() -> None:
    """Bias on query and value alone; EVA-01 has a plain feed-forward and no rotary positions, g/14 one of 6144."""
    with torch.device("meta"):
        backbone = student_of(recipes.recipe("eva_g14")).build(frozenset()).backbone
    block = backbone.blocks[0]
    assert (backbone.embed_dim, len(backbone.blocks), block.attn.num_heads) == (1408, 40, 16)
    assert block.mlp.fc1.out_features == 6144 and backbone.rope is None
    assert block.attn.qkv.bias is None and block.attn.q_bias is not None and block.attn.v_bias is not None
    assert block.gamma_1 is None and block.norm1.eps == 1e-6 and isinstance(backbone.norm, nn.LayerNorm)


@pytest.mark.parametrize("name", [name for name in SHEETS if "_b1" in name])
def test_two_steps_at_full_width(name: str) -> None:
    done, still = steps(recipes.recipe(name), TEACHERS[name])
    assert done[0].losses.total.item() == pytest.approx(SHEETS[name].loss[0], abs=SHEETS[name].loss[1])
    assert still == []


def test_a_stem_with_a_share_of_its_gradient() -> None:
    """EVA-02's code: 0.9 stop_gradient(x) + 0.1 x. The rows are the same, and the slope a tenth."""
    slopes, rows = [], []
    for share in (1.0, 0.1):
        torch.manual_seed(0)
        encoder = Vit(arch="eva02_tiny_patch14_224", size=28, depth=1, stem_gradient=share).build(frozenset())
        embedded = encoder.backbone.patch_embed(torch.ones(1, 3, 28, 28))
        embedded.square().sum().backward()
        rows.append(embedded.detach())
        slopes.append(encoder.backbone.patch_embed.proj.weight.grad)
    torch.testing.assert_close(rows[0], rows[1])
    torch.testing.assert_close(0.1 * slopes[0], slopes[1])


def test_fd_explains_whitened_rows_with_the_class_token() -> None:
    """The row as a slow formula: each teacher row to mean 0 and variance 1, smooth L1 of beta 2 over all 37 rows."""
    row = METHODS["fd"]
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    represented = objective.represent(batch, answers)
    guess, ((ask, answer),) = represented.guesses["distil"].detach().double(), answers.items()
    assert ask.space == "raw"
    total = 0.0
    for sample in range(4):
        rows = torch.cat([answer.pooled[sample : sample + 1], answer.rows[sample]]).double()
        for number, truth in enumerate(rows):
            centred = (truth - truth.mean()) / (truth.var(unbiased=False) + 1e-5).sqrt()
            for channel in range(40):
                gap = abs(float(guess[sample, number, channel] - centred[channel]))
                total += gap**2 / 4 if gap < 2 else gap - 1
    assert objective.score(represented).total.item() == pytest.approx(total / (4 * 37 * 40), abs=1e-5)
