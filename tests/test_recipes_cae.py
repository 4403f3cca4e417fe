"""CAE: regressor and decoder against loops in double precision, what its target sees, and the paper's numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from full_width import steps
from onestage import recipes
from onestage.encoders import Regressor, Vit
from onestage.methods import METHODS
from onestage.objective import Answers, Method
from onestage.ops import place_of, sincos_2d
from onestage.predictors import Latent
from onestage.spec import UserError, from_plain, to_plain
from onestage.types import Piece, Tokens, Wanted
from small import lean
from test_objective import answers_for, batch_for, objective_for
from test_projectors import attended

GRID, CELLS = (2, 3), [[4, 1], [0, 5]]
HIDDEN = [[0, 2, 3, 5], [1, 2, 3, 4]]


def filled(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4, generator=draw)
    return module.double()


def tokens_of(cells: list[list[int]], width: int) -> Tokens:
    rows = torch.randn(len(cells), len(cells[0]), width, generator=torch.Generator().manual_seed(0)).double()
    return Tokens(rows, rows.mean(dim=1), place_of(torch.tensor(cells)), GRID, None)


def normed(row: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = (row - row.mean()) / (((row - row.mean()) ** 2).mean() + 1e-6).sqrt()
    return centred * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mapped(row: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]


@torch.no_grad()
def test_the_regressor_equals_loops() -> None:
    """Queries: mask token and position; keys: everything and its position; values: everything without."""
    width, heads = 8, 2
    projector = filled(Regressor(depth=2, heads=heads, mlp_ratio=2.0).build(width))
    tokens, positions = tokens_of(CELLS, width), sincos_2d(width, GRID).double()
    weights, found = dict(projector.state_dict()), projector(tokens)
    assert found.place.cell.tolist() == HIDDEN
    for sample, (cells, hidden) in enumerate(zip(CELLS, HIDDEN, strict=True)):
        rows = [weights["mask"]] * len(hidden)
        for number in range(2):
            block = {key[9:]: value for key, value in weights.items() if key.startswith(f"blocks.{number}.")}
            everything, places = [*tokens.rows[sample], *rows], positions[[*cells, *hidden]]
            keys = [
                mapped(normed(row + place, block, "norm_key"), block, "key")
                for row, place in zip(everything, places, strict=True)
            ]
            values = [mapped(normed(row, block, "norm_value"), block, "value") for row in everything]
            after = []
            for row, place in zip(rows, positions[hidden], strict=True):
                query, read = mapped(normed(row + place, block, "norm_query"), block, "query"), []
                for head in range(heads):
                    part = slice(4 * head, 4 * head + 4)
                    scores = [math.exp(float(query[part] @ key[part]) / 2) for key in keys]
                    shares = [score / sum(scores) for score in scores]
                    read.append(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
                row = row + block["scale_read"] * mapped(torch.cat(read), block, "out")
                inside = torch.nn.functional.gelu(mapped(normed(row, block, "norm_feed"), block, "feed.0"))
                after.append(row + block["scale_feed"] * mapped(inside, block, "feed.2"))
            rows = after
        expected = torch.stack([normed(row, weights, "norm") for row in rows])
        torch.testing.assert_close(found.rows[sample], expected)
        torch.testing.assert_close(found.pooled[sample], expected.mean(dim=0))


@torch.no_grad()
def test_the_decoder_of_latents_equals_loops() -> None:
    width = 8
    head = filled(Latent(depth=1, heads=2, mlp_ratio=2.0).build(width, 5, GRID))
    tokens, positions = tokens_of(HIDDEN, width), sincos_2d(width, GRID).double()
    wanted = Wanted(torch.tensor([[5, 0], [3, 1]]), GRID, None)
    weights, guess = dict(head.state_dict()), head(tokens, wanted)
    block = {key[9:]: value for key, value in weights.items() if key.startswith("blocks.0.")}
    for sample, hidden in enumerate(HIDDEN):
        rows = tokens.rows[sample] + positions[hidden]
        first = torch.stack([normed(row, block, "norm1") for row in rows]).unsqueeze(0)
        rows = rows + block["ls1.gamma"] * attended(first, block, 2)[0]
        for place, row in enumerate(rows):
            inside = torch.nn.functional.gelu(mapped(normed(row, block, "norm2"), block, "mlp.fc1"))
            out = normed(row + block["ls2.gamma"] * mapped(inside, block, "mlp.fc2"), weights, "norm")
            if hidden[place] in wanted.cell[sample]:
                slot = wanted.cell[sample].tolist().index(hidden[place])
                torch.testing.assert_close(guess[sample, slot], mapped(out, weights, "head"))


def test_latents_are_those_of_the_hidden_cells_alone() -> None:
    """The student's own weights, without gradients, on what the input does not show; twice the squared error."""
    row = lean(METHODS["cae"])
    objective, batch, answers = objective_for(row).eval(), batch_for(row), answers_for(row)
    represented = objective.represent(batch, answers)
    losses, hidden = objective.score(represented), batch.hidden["kept/image"]
    count = int(hidden[0].sum())
    shown = Piece(batch.views["view1"], hidden=~hidden, hides=hidden.shape[1] - count, mode="drop")
    latents = objective.encoder("student")({"image": shown})
    target = represented.targets["latents"].rows
    assert not target.requires_grad and latents.place.cell.shape[1] == count
    torch.testing.assert_close(target, latents.rows)
    guess = represented.guesses["latents"]
    error = float(((guess.detach() - target).double() ** 2).mean())
    assert losses.terms["latents"].item() == pytest.approx(error, rel=1e-5)
    total = losses.terms["codes"] + 2 * losses.terms["latents"]
    torch.testing.assert_close(losses.total, total)


def test_the_target_encoder_is_the_student_at_every_step() -> None:
    row = lean(METHODS["cae"])
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    objective(batch, answers).total.backward()
    optimiser.step()
    objective.after_step(0, 10)
    for new, old in zip(objective.encoder("student").parameters(), objective.encoder("live").parameters(), strict=True):
        assert torch.equal(new, old)
    tiny = recipes.recipe("cae_tiny").method.encoders["live"]
    assert (tiny.momentum, tiny.end) == (0.0, 0.0)


def test_what_a_regressor_cannot_do_is_said() -> None:
    plain = to_plain(METHODS["cae"])
    plain["terms"]["codes"]["target"]["rows"] = "kept"
    with pytest.raises(UserError, match="gives rows of hidden cells alone"):
        from_plain(Method, plain)
    plain = to_plain(METHODS["beit"])
    plain["terms"]["codes"]["target"]["sees"] = "hidden"
    with pytest.raises(UserError, match="sees: hidden is for an encoder of this row"):
        from_plain(Method, plain)
    with pytest.raises(UserError, match="12 heads equally"):
        Regressor().build(40)


@pytest.mark.parametrize("name", ["cae_b16", "cae_l16"])
def test_the_numbers_of_cae(name: str) -> None:
    recipe = recipes.recipe(name)
    model, (group,) = recipe.models["student"], recipe.optimiser.groups.values()
    assert isinstance(model, Vit)
    assert (recipe.batch, recipe.epochs, group.lr, group.clip, group.betas) == (2048, 1600, 1.5e-3, 3.0, (0.9, 0.999))
    assert (model.positions, model.drop_path, model.layer_scale) == ("sincos", 0.1, 0.1 if "_b" in name else 1e-5)
    assert recipe.schedule.warmup_steps(16_000) == 400
    assert dataclasses.asdict(recipe.method.terms["codes"].predictor)["depth"] == 4
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and part.hide.count((14, 14)) == 98


def test_two_steps_at_full_width() -> None:
    done, still = steps(recipes.recipe("cae_b16"), Answers((14, 14), 512, 768, 8192))
    assert done[0].losses.terms["codes"].item() == pytest.approx(math.log(8192), abs=0.7)
    assert still == []
