"""Training itself: skipped steps, accumulation, averages, starting weights, precision and learning rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from onestage import cli, pretraining, recipes
from onestage.engine.metrics import read_metrics
from onestage.objective import Ema, Frozen
from onestage.pretraining import initialise_from, loop, prepare
from onestage.pretraining.bundle import live
from onestage.spec import UserError, read_yaml, to_yaml
from onestage.storage import load
from onestage.teachers import load as load_model
from onestage.types import Geometry, View
from small import AVERAGED, BATCH, ROWS, small
from stepping import batch_of, brief_teacher, state, take, taught, tensors

SAMPLE_ROWS = [name for name in ROWS if name != "clip"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return brief_teacher(tmp_path_factory.mktemp("teacher"))


# --- Starting weights ------------------------------------------------------------------------------------------------


def test_init_loads_every_encoder(tmp_path: Path) -> None:
    pretraining.start(small("averaged", steps=2), tmp_path / "first", [])
    given = tensors(tmp_path / "first", 2)
    said: list[str] = []
    recipe = small("averaged", steps=1, seed=7, init=str(tmp_path / "first"))
    pretraining.start(recipe, tmp_path / "second", [], said.append)
    begun = tensors(tmp_path / "second", 0)
    names = [name for name in given if name.startswith("model.encoders.student.")]
    assert len(names) > 20
    assert all(torch.equal(begun[name], given[name]) for name in names)
    assert any(f"{len(names)} tensors loaded, 0 left as they were" in line for line in said)
    averages = {name: name.replace(".student.", ".average.") for name in names}
    assert all(torch.equal(begun[slow], begun[name]) for name, slow in averages.items()), "an average starts there too"
    assert not torch.equal(begun["model.predictors.self.map.weight"], given["model.predictors.self.map.weight"])


def test_init_may_start_from_the_average(tmp_path: Path) -> None:
    pretraining.start(small("averaged", steps=2), tmp_path / "first", [])
    given = tensors(tmp_path / "first", 2)
    recipe = small("mae", init=f"{tmp_path / 'first'}:ema")
    prepared = prepare(recipe, None)
    initialise_from(prepared.objective, recipe, f"{tmp_path / 'first'}:ema")
    own = prepared.objective.encoders["student"].state_dict()
    assert all(torch.equal(tensor, given[f"model.encoders.average.{name}"]) for name, tensor in own.items())


def test_init_from_a_step(tmp_path: Path) -> None:
    pretraining.start(small("averaged", steps=2), tmp_path / "first", [])
    prepared = prepare(small("mae"), None)
    initialise_from(prepared.objective, small("mae"), f"{tmp_path / 'first'}@1")
    own = prepared.objective.encoders["student"].state_dict()
    assert all(
        torch.equal(tensor, tensors(tmp_path / "first", 1)[f"model.encoders.student.{name}"])
        for name, tensor in own.items()
    )


def test_init_that_does_not_fit_is_refused_before_anything_is_written(teacher: str, tmp_path: Path) -> None:
    recipe = small("mae", vit={"width": 48}, init=teacher)
    with pytest.raises(UserError, match=r"0 tensors fit, \d+ have another shape.*same architecture, width, depth"):
        pretraining.start(recipe, tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


# --- Precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["clip", "averaged", "uta", "supervised"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_losses_are_fp32_whatever_networks_compute_in(row: str, precision: str, teacher: str) -> None:
    prepared = prepare(small(row, precision=precision, teachers=taught(row, teacher)), None)
    seen: dict[str, torch.dtype] = {}
    term = next(iter(prepared.objective.likelihoods))
    watch(prepared.objective.predictors[term], lambda out: seen.update(guess=out.dtype))
    watch(prepared.objective.likelihoods[term], lambda out: seen.update(loss=out.dtype))
    assert not take(prepared, 0)
    assert seen == {"guess": torch.bfloat16 if precision == "bf16" else torch.float32, "loss": torch.float32}
    kept = {tensor.dtype for tensor in state(prepared).values() if tensor.is_floating_point()}
    assert kept == {torch.float32}, "parameters, averages and moments stay in fp32"


def watch(module: nn.Module, see: Callable[[Tensor], None]) -> None:
    module.register_forward_hook(lambda _module, _given, out: see(out))


# --- Averages --------------------------------------------------------------------------------------------------------


def test_a_method_with_an_average_by_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, run = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(to_yaml(small("averaged", steps=3)))
    assert read_yaml(file)["method"]["encoders"]["average"]["kind"] == "ema"
    assert recipes.recipe(str(file)) == small("averaged", steps=3)
    assert cli.command(["pretrain", str(file), "--out", str(run)]) == 0
    saved = tensors(run, 3)
    names = [name for name in saved if name.startswith("model.encoders.student.") and "num_batches" not in name]
    slow = [name.replace(".student.", ".average.") for name in names]
    assert not any(torch.equal(saved[name], saved[other]) for name, other in zip(names, slow, strict=True))
    average = load_model(f"{run}:ema").encoder.state_dict()
    assert all(torch.equal(tensor, saved[f"model.encoders.average.{name}"]) for name, tensor in average.items())


def test_the_average_of_a_run_is_the_formula(tmp_path: Path) -> None:
    """slow <- m_t slow + (1 - m_t) fast, m_t = 1 - (1 - 0.9) (cos(pi t / T) + 1) / 2, after step t = 0, 1, 2 of T."""
    total = 3
    pretraining.start(small("averaged", steps=total), tmp_path / "run", [])
    name = "encoders.{}.backbone.blocks.0.attn.qkv.weight"
    saved = [load(tmp_path / "run" / "checkpoints" / f"step_{step:08d}").tensors["model"] for step in range(total + 1)]
    slow = saved[0][name.format("student")].double()
    torch.testing.assert_close(saved[0][name.format("average")].double(), slow)
    role = AVERAGED.encoders["average"]
    assert isinstance(role, Ema)
    for step in range(total):
        m = 1 - (1 - role.momentum) * (math.cos(math.pi * step / total) + 1) / 2
        slow = m * slow + (1 - m) * saved[step + 1][name.format("student")].double()
        torch.testing.assert_close(saved[step + 1][name.format("average")].double(), slow, rtol=1e-5, atol=1e-7)


# --- Learning rates and texts ----------------------------------------------------------------------------------------


def test_learning_rates_follow_the_batch_and_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)
    file = tmp_path / "mine.yaml"
    recipe = small("averaged", steps=4)
    file.write_text(to_yaml(dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, warmup=0.5))))
    assert cli.command(["pretrain", str(file), "--out", str(tmp_path / "run"), "--batch", "16"]) == 0
    assert "learning rate 1e-2 at batch 32 -> 5e-3 at batch 16 (linear rule)" in capfd.readouterr().err
    rates = [record["lr"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rates == pytest.approx([0.0, 5e-3, 5e-3, (5e-3 + 5e-6) / 2], rel=1e-6)


@pytest.mark.parametrize("row", list(ROWS))
def test_texts_are_counted_where_they_are_read(
    row: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)
    pretraining.start(small(row, steps=3, teachers=taught(row, teacher)), tmp_path / "run", [])
    counts = [record["texts"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert counts == ([BATCH, 2 * BATCH, 3 * BATCH] if ROWS[row].needs_texts else [0, 0, 0])


def test_a_missing_teacher_is_said_with_what_to_type(tmp_path: Path) -> None:
    assert ROWS["uta"].named(Frozen) == ["teacher"]
    with pytest.raises(UserError, match="--teacher runs/teacher") as caught:
        pretraining.start(small("uta"), tmp_path / "run", [])
    assert "onestage pretrain clip_tiny" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_frozen_teacher_stays_as_it_is(teacher: str) -> None:
    prepared = prepare(small("uta", teachers=taught("uta", teacher)), None)
    before = [p.clone() for part in prepared.teachers["teacher"].parts() for p in part.state_dict().values()]
    assert not take(prepared, 0)
    after = [p for part in prepared.teachers["teacher"].parts() for p in part.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not any(name.startswith("model.encoders.teacher") for name in state(prepared))


def test_a_view_is_not_changed_by_a_step() -> None:
    """Pixels are read only: the next term would see what the first one did."""
    prepared = prepare(small("mae"), None)
    batch = batch_of(prepared, 0)
    view = batch.views["view1"]
    kept = View(view.pixels.clone(), Geometry(*(part.clone() for part in view.geometry)))
    assert not take(prepared, 0, batch)
    assert torch.equal(view.pixels, kept.pixels)
    assert all(torch.equal(old, new) for old, new in zip(kept.geometry, view.geometry, strict=True))


@pytest.mark.parametrize(
    ("row", "pool"),
    [("mae", "mean"), ("simmim", "mean"), ("dense_instance", "mean"), ("supervised", "cls"), ("instance", "cls")],
)
def test_what_stands_for_an_image_is_what_was_trained(row: str, pool: str) -> None:
    """kNN and a linear probe of a row that trains no pooled row read the mean of the patch rows."""
    assert live(prepare(small(row), None)).pool == pool
