"""One step: skipped where it is not finite, accumulated exactly, in the precision it was asked for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from onestage import pretraining
from onestage.engine.metrics import read_metrics
from onestage.engine.pieces import on_device
from onestage.engine.step import MAX_SKIPPED
from onestage.objective.average import BATCH_NORMS
from onestage.pretraining import loop, prepare
from onestage.spec import UserError
from onestage.storage import latest, load
from onestage.types import Batch
from small import BATCH, ROWS, small
from stepping import batch_of, brief_teacher, differing, poisoned, state, take, taught, tensors


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return brief_teacher(tmp_path_factory.mktemp("teacher"))


# --- Losses and gradients that are not finite ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_no_trace(what: str, value: float) -> None:
    """An average, batch norm and drop path: the first all its state, the last a generator."""
    recipe = small("averaged", vit={"stem": "conv", "drop_path": 0.4})
    left_alone, prepared = prepare(recipe, None), prepare(recipe, None)
    for run in (left_alone, prepared):
        assert not take(run, 0)
        assert not take(run, 1)
    before = state(prepared)
    assert any("running_mean" in name for name in before)
    assert any(name.startswith("model.encoders.average") for name in before)
    if what == "loss":
        assert take(prepared, 2, poisoned(batch_of(prepared, 2), value))
    else:
        parameter = next(prepared.objective.predictors.parameters())
        hook = parameter.register_hook(lambda gradient: gradient * value)
        assert take(prepared, 2)
        hook.remove()
    assert differing(before, state(prepared)) == []
    assert all(parameter.grad is None for parameter in prepared.objective.parameters())
    for run in (left_alone, prepared):
        assert not take(run, 3)
    assert differing(state(left_alone), state(prepared)) == []
    assert differing(before, state(prepared)), "the last step did something"


def test_accumulated_pieces_are_skipped_together() -> None:
    prepared = prepare(small("averaged", vit={"stem": "conv"}, accumulate=4), None)
    before = state(prepared)
    assert take(prepared, 0, poisoned(batch_of(prepared, 0), math.nan))
    assert differing(before, state(prepared)) == []


def test_five_bad_steps_in_a_row_stop_the_run() -> None:
    prepared = prepare(small("averaged"), None)
    bad = poisoned(batch_of(prepared, 0), math.nan)
    assert [take(prepared, step, bad) for step in range(MAX_SKIPPED - 1)] == [True] * 4
    assert not take(prepared, 4), "a good one: counting starts anew"
    before = state(prepared)
    assert [take(prepared, step, bad) for step in range(5, 9)] == [True] * 4
    with pytest.raises(UserError, match=r"not finite 5 steps in a row \(last losses: self nan\)"):
        take(prepared, 9, bad)
    assert differing(before, state(prepared)) == []


def poison(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Have the loop meet bad pixels at some steps."""

    def spoil(batch: Batch, device: torch.device) -> Batch:
        made = on_device(batch, device)
        return poisoned(made, math.nan) if int(batch.number[0]) // BATCH in steps else made

    monkeypatch.setattr(loop, "on_device", spoil)
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)


def test_a_run_goes_on_after_one_bad_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, range(1, 2))
    done = pretraining.start(small("averaged", steps=4), tmp_path / "run", [])
    assert done.step == 4
    losses = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert [loss is None for loss in losses] == [False, True, False, False]
    saved = {step: tensors(tmp_path / "run", step) for step in (1, 2, 3)}
    assert differing(saved[1], saved[2]) == []
    assert differing(saved[2], saved[3])


def test_a_run_that_stays_bad_stops_and_keeps_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(2, 100))
    with pytest.raises(UserError, match="Lower the learning rate"):
        pretraining.start(small("averaged", steps=20), tmp_path / "run", [])
    newest = latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert load(newest).step == 6
    assert differing(tensors(tmp_path / "run", 2), tensors(tmp_path / "run", 6)) == []


# --- Accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", list(ROWS))
def test_accumulation_is_exact(row: str, teacher: str) -> None:
    """Batch norm would see single pieces, as `Step` says: it stands still here, everything else is compared."""
    found = {}
    for pieces in (1, 2, 4):
        prepared = prepare(small(row, accumulate=pieces, teachers=taught(row, teacher)), None)
        for module in prepared.objective.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        stepped = prepared.step(batch_of(prepared, 0), 0, prepared.total)
        gradients = {name: p.grad for name, p in prepared.objective.named_parameters() if p.grad is not None}
        found[pieces] = (stepped.losses.terms | {"total": stepped.losses.total, "norm": stepped.norm}, gradients)
    assert max(gradient.abs().max().item() for gradient in found[1][1].values()) > 1e-3
    for pieces in (2, 4):
        for one, cut in zip(found[1], found[pieces], strict=True):
            assert one.keys() == cut.keys()
            for name in one:
                torch.testing.assert_close(cut[name], one[name], rtol=1e-5, atol=1e-5, msg=f"{name}, {pieces} pieces")


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match="batch 8 cannot be cut into 3 equal pieces"):
        small("mae", accumulate=3)
