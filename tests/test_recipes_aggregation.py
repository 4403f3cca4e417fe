"""BEiT v2: patch aggregation against the encoder's own blocks, two heads that are one, and the paper's numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from full_width import steps
from onestage import recipes
from onestage.encoders import Aggregation, Vit
from onestage.layers.outputs import outputs_of
from onestage.methods import METHODS
from onestage.objective import Answers, Objective
from onestage.predictors import LinearPredictor
from onestage.spec import UserError
from small import lean
from test_objective import CODES, GRID, SIZE, answers_for, batch_for

DEEP = Vit(
    arch="vit_tiny_patch16_224",
    size=SIZE,
    patch=8,
    width=32,
    depth=4,
    heads=2,
    positions="relative",
    layer_scale=0.1,
)


@torch.no_grad()
def test_patch_aggregation_is_two_more_blocks_of_the_encoder() -> None:
    """With the weights of the encoder's last two blocks: they read the second block's cells and the last class token,
    under the encoder's relative positions, and its final norm and the shared head come after them."""
    torch.manual_seed(0)
    row = METHODS["beit2"]
    head = Aggregation(block=3, heads=2, before=2)
    row = dataclasses.replace(row, projectors={"aggregation": head})
    objective = Objective(row, {"student": DEEP}, {"teacher": Answers(GRID, 24, 40, CODES)}).eval()
    encoder, made = objective.encoder("student"), objective.projectors.trained["aggregation"]
    for parameter in encoder.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    encoder.rel_pos.table[-2] += 6  # so that cells look at the class token
    made.blocks[0].load_state_dict(encoder.backbone.blocks[2].state_dict())
    made.blocks[1].load_state_dict(encoder.backbone.blocks[3].state_dict())
    batch, answers = batch_for(row), answers_for(row)
    with outputs_of(encoder.backbone.blocks, 4) as found:
        represented = objective.represent(batch, answers)
    rows = torch.cat([found[3][:, :1], found[1][:, 1:]], dim=1)
    bias = encoder.rel_pos.table[encoder.rel_pos.index].permute(2, 0, 1).unsqueeze(0)
    for block in encoder.backbone.blocks[2:]:
        rows = block(rows, attn_mask=bias)
    rows, linear = encoder.backbone.norm(rows), objective.predictor("codes")
    assert isinstance(linear, LinearPredictor) and objective.predictor("class") is linear
    hidden = batch.hidden["masked/image"]
    for sample in range(len(rows)):
        expected = rows[sample, 1:][hidden[sample]] @ linear.map.weight.T + linear.map.bias
        torch.testing.assert_close(represented.guesses["class"][sample], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(represented.guesses["class"], represented.guesses["codes"], atol=1e-2)


def test_both_losses_add_up_and_reach_the_last_block() -> None:
    """The second through the class token alone, since its cells left the encoder early."""
    row = lean(METHODS["beit2"])
    objective = Objective(row, {"student": DEEP}, {"teacher": Answers(GRID, 24, 40, CODES)})
    batch, answers = batch_for(row), answers_for(row)
    last = objective.encoder("student").backbone.blocks[-1]
    outputs: list[torch.Tensor] = []
    last.register_forward_hook(lambda _, given, output: outputs.append(output))
    losses = objective(batch, answers)
    (slope,) = torch.autograd.grad(losses.terms["class"], outputs[0], retain_graph=True)
    assert float(slope[:, 0].norm()) > 0 and float(slope[:, 1:].norm()) == 0
    (slope,) = torch.autograd.grad(losses.terms["codes"], outputs[0], retain_graph=True)
    assert float(slope[:, 0].norm()) == 0 and float(slope[:, 1:].norm()) > 0
    torch.testing.assert_close(losses.total, losses.terms["codes"] + losses.terms["class"])


def test_its_branches_start_as_those_of_the_blocks_that_would_follow() -> None:
    made = Aggregation(before=9).build(96)
    for number, block in enumerate(made.blocks, start=10):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert 0.9 < float(weight.detach().abs().max()) * math.sqrt(2 * number) / 0.02 <= 1.0001
        assert 0.9 < float(block.mlp.fc1.weight.detach().abs().max()) / 0.02 <= 1
    with pytest.raises(UserError, match="12 heads do not share 40 values"):
        Aggregation().build(40)


@pytest.mark.parametrize(("name", "before", "scale"), [("beit2_b16", 9, 0.1), ("beit2_l16", 21, 1e-5)])
def test_the_numbers_of_beit_v2(name: str, before: int, scale: float) -> None:
    recipe = recipes.recipe(name)
    model, (group,) = recipe.models["student"], recipe.optimiser.groups.values()
    head = recipe.method.projectors["aggregation"]
    assert isinstance(model, Vit) and isinstance(head, Aggregation)
    assert (recipe.batch, recipe.epochs, group.lr, group.clip, group.betas) == (2048, 1600, 1.5e-3, 3.0, (0.9, 0.999))
    assert (model.layer_scale, head.layer_scale, model.drop_path, head.drop_path) == (scale, scale, 0.1, 0.1)
    assert (head.before, head.block, head.depth) == (before, 4, 2)
    assert recipe.schedule.warmup_steps(16_000) == 100
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and part.hide.count((14, 14)) == 75
    assert recipe.method.views["view1"].scale == (0.2, 1.0)


def test_two_steps_at_full_width_cost_both_heads() -> None:
    done, still = steps(recipes.recipe("beit2_b16"), Answers((14, 14), 512, 768, 8192))
    assert done[0].losses.total.item() == pytest.approx(2 * math.log(8192), abs=1.0)
    assert still == []
