"""Projectors: against a formula in loops, shared and averaged by the objective, and left out of the model of a run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage.encoders import Blocks
from onestage.methods import METHODS
from onestage.objective import Method, add
from onestage.ops import place_of
from onestage.pretraining import start
from onestage.spec import UserError, from_plain, to_plain
from onestage.teachers import load_run
from onestage.types import Tokens
from small import lean, small
from test_objective import batch_for, objective_for

ROW = lean(METHODS["siamese_feature"])


def batch_norm(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each channel over samples and rows."""
    out = torch.empty_like(rows)
    for channel in range(rows.shape[2]):
        values = rows[:, :, channel]
        mean = values.sum() / values.numel()
        variance = ((values - mean) ** 2).sum() / values.numel()
        out[:, :, channel] = (values - mean) / math.sqrt(float(variance) + 1e-5) * weight[channel] + bias[channel]
    return out


def attended(rows: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    """Multi-head attention of every row over all rows of its sample."""
    out = torch.zeros_like(rows)
    width = rows.shape[2] // heads
    for sample in range(rows.shape[0]):
        joint = rows[sample] @ weights["attn.qkv.weight"].T + weights["attn.qkv.bias"]
        query, key, value = joint.split(rows.shape[2], dim=1)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for row in range(rows.shape[1]):
                scores = torch.tensor([float(query[row, part] @ other[part]) for other in key], dtype=rows.dtype)
                share = (scores / math.sqrt(width)).exp()
                out[sample, row, part] = (share / share.sum()) @ value[:, part]
    return out @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]


@torch.no_grad()
def test_blocks_equal_attention_and_batch_norm_written_out() -> None:
    torch.manual_seed(3)
    projector = Blocks(depth=1, heads=2, mlp_ratio=2.0).build(8).double()
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = tokens_of(torch.randn(3, 4, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64))
    found = projector(tokens)
    w = dict(projector.blocks[0].named_parameters())
    rows = torch.cat([tokens.pooled[:, None], tokens.rows], dim=1) @ projector.embed.weight.T + projector.embed.bias
    rows = rows + attended(batch_norm(rows, w["norm1.norm.weight"], w["norm1.norm.bias"]), w, heads=2)
    hidden = batch_norm(rows, w["norm2.norm.weight"], w["norm2.norm.bias"]) @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    rows = rows + gelu @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    torch.testing.assert_close(found.rows, rows[:, 1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.pooled, rows[:, 0], rtol=1e-9, atol=1e-9)


def tokens_of(rows: Tensor, pooled: Tensor) -> Tokens:
    cells = torch.arange(rows.shape[1]).expand(rows.shape[0], -1)
    return Tokens(rows, pooled, place_of(cells), (2, rows.shape[1] // 2), None)


def test_heads_that_do_not_share_the_width_are_refused() -> None:
    with pytest.raises(UserError, match="7 heads do not share 32 values"):
        Blocks(heads=7).build(32)


def test_the_average_of_a_projector_follows_it_and_keeps_statistics_of_its_own() -> None:
    objective = objective_for(ROW)
    objective.training_mode()
    trained, slow = objective.projectors.named("blocks"), objective.projectors.averaged["average_blocks"]
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), slow.parameters(), strict=True))
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    objective(batch_for(ROW), {}).total.backward()
    optimiser.step()
    objective.after_step(0, 1)
    assert all(parameter.grad is None for parameter in slow.parameters())
    moved = [torch.equal(a, b) for a, b in zip(trained.parameters(), slow.parameters(), strict=True)]
    assert not any(moved)  # momentum 0.995 to 1 in one step leaves the average where it was
    means = [module.blocks[0].norm1.norm.running_mean for module in (trained, slow)]
    assert means[1].abs().sum() > 0 and not torch.equal(*means)


def test_an_average_sees_its_batch_but_drops_no_path() -> None:
    objective = objective_for(ROW)
    objective.training_mode()
    modes = {type(m).__name__: m.training for m in objective.projectors.averaged["average_blocks"].modules()}
    assert modes["BatchNorm1d"] and not modes["Block"]
    assert not any(module.training for module in objective.encoder("average").modules())


def test_terms_that_name_one_projector_share_it_and_a_sum_keeps_others_apart() -> None:
    plain = METHODS["mim_feature"]
    summed = lean(add([(1.0, METHODS["siamese_feature"]), (1.0, plain)]))
    assert {name: term.projector for name, term in summed.terms.items()} == {
        "features": "blocks",
        "mim_feature_features": None,
    }
    first = objective_for(summed)(batch_for(summed), {})
    assert math.isfinite(first.total.item())
    other = dataclasses.replace(METHODS["siamese_feature"], name="other", projectors={"blocks": Blocks(heads=4)})
    assert sorted(add([(1.0, METHODS["siamese_feature"]), (1.0, other)]).projectors) == ["blocks", "other_blocks"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projectors": {}}, r"terms.features.projector: there is no 'blocks' in projectors"),
        ({"projectors": {"blocks": {"kind": "blocks"}, "spare": {"kind": "blocks"}}}, "projectors.spare: no term uses"),
    ],
)
def test_projectors_that_lead_nowhere_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_plain(Method, to_plain(METHODS["siamese_feature"]) | change)


def test_the_model_of_a_run_is_its_backbone(tmp_path: Path) -> None:
    start(small("siamese_feature", steps=2), tmp_path / "run", [], lambda line: None)
    for which in ("student", "ema"):
        model = load_run(tmp_path / "run", None, which, None, torch.device("cpu"))
        assert model.projector is None and model.width("raw") == 32


def test_a_category_head_behind_a_projector_is_read_through_it(tmp_path: Path) -> None:
    row = lean(METHODS["supervised"])
    term = dataclasses.replace(next(iter(row.terms.values())), projector="blocks")
    row = dataclasses.replace(row, terms={"category": term}, projectors={"blocks": Blocks(depth=1, heads=2)})
    start(small("supervised", method=row, steps=2), tmp_path / "run", [], lambda line: None)
    model = load_run(tmp_path / "run", None, "student", None, torch.device("cpu"))
    assert model.categories is not None and model.categories.projector is not None
    tokens = model.tokens(torch.rand(2, 3, 32, 32), "raw")
    scores = model.categories(tokens)
    bare = type(model.categories)(model.categories.predictor, model.categories.table, model.categories.likelihood, ())
    assert scores.shape == (2, 10) and not torch.allclose(scores, bare(tokens))
