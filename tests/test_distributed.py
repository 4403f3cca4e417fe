"""Several processes are one: the same numbers, the same weights and one set of files, whatever their number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from killed import environment, measured, newest
from loading import flat, made, sized
from onestage import pretraining
from onestage.data import Quarantine, Scenes
from onestage.distributed import Reducer, agreed, align, gather, mean, rank, synchronise, told_anywhere, total, world
from onestage.engine.pieces import check_slices
from onestage.spec import UserError
from onestage.types import Batch
from ranked import WORLDS
from ranked_checks import LIKELIHOODS
from ranked_runs import STEPS

SEVERAL = [count for count in WORLDS if count > 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks of every world found, and whole runs of theirs."""
    made = tmp_path_factory.mktemp("ranked")
    command = [sys.executable, str(Path(__file__).with_name("ranked.py")), str(made)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return made


def codes(folder: Path, name: str) -> list[int]:
    return json.loads((folder / "codes.json").read_text())[name]


def said(folder: Path, name: str) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob(f"log{name}.*"))]


def found(folder: Path, count: int, of: str) -> dict[str, Tensor]:
    assert codes(folder, f"{count}") == [0] * count, "\n".join(said(folder, f"{count}"))[-4000:]
    read = load_file(folder / f"{count}.safetensors")
    return {name.removeprefix(f"{of}/"): tensor for name, tensor in read.items() if name.startswith(f"{of}/")}


def distance(first: Tensor, second: Tensor) -> float:
    """Relative, by the norm of all values."""
    return float((first.double() - second.double()).norm() / second.double().norm().clamp_min(1e-12))


# --- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", SEVERAL)
@pytest.mark.parametrize("likelihood", list(LIKELIHOODS))
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_gradients_are_those_of_one_process(
    folder: Path, count: int, likelihood: str, precision: str, bound: float
) -> None:
    alone, shared = found(folder, 1, "of_likelihoods"), found(folder, count, "of_likelihoods")
    names = [name for name in alone if name.startswith(f"{precision}/{likelihood}/")]
    assert {name.split("/")[-1] for name in names} >= {"loss", "guess.weight", "guess.bias"}
    assert {name for name in shared if name.startswith(f"{precision}/{likelihood}/")} == set(names)
    assert not any("spare" in name for name in names), "an unused parameter has no gradient"
    for name in names:
        assert alone[name].dtype == getattr(torch, precision)
        if likelihood == "cross_correlation" and name.endswith("bias"):  # what all samples share has no influence
            assert max(alone[name].abs().max(), shared[name].abs().max()) < 1e-6, name
            continue
        assert alone[name].abs().max() > 1e-6, name
        assert distance(shared[name], alone[name]) < bound, name


@pytest.mark.parametrize("count", SEVERAL)
@pytest.mark.parametrize("of", ["of_collectives", "of_weighted_mean", "of_batch_norm"])
def test_sums_rows_and_batch_norm_are_those_of_one_process(folder: Path, count: int, of: str) -> None:
    alone, shared = found(folder, 1, of), found(folder, count, of)
    assert alone
    assert shared.keys() == alone.keys()
    for name, truth in alone.items():
        assert distance(shared[name], truth) < (1e-10 if truth.dtype == torch.float64 else 1e-6), name


def test_a_weighted_mean_has_one_normaliser(folder: Path) -> None:
    """sum(w l) / sum(w), with the rows that count on one of four ranks and none on others."""
    for count in WORLDS:
        means = found(folder, count, "of_weighted_mean")
        truth = (1 * 4 + 2 * 5 + 3 * 9 + 0.5 * 12) / 6.5
        assert float(means["ragged"]) == pytest.approx(truth, rel=1e-6)
        assert float(means["nothing"]) == 0


def test_one_process_pays_nothing() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather(rows) is rows
    assert mean(rows) is rows
    assert total(rows) is rows
    assert (world(), rank(), agreed(True), agreed(False), told_anywhere("x")) == (1, 0, True, False, (0, "x"))
    norm = torch.nn.BatchNorm1d(2)
    assert synchronise(norm) is norm
    before = norm.weight.clone()
    align(norm)
    Reducer(norm).expect([rows.sum()])
    assert torch.equal(norm.weight, before)


# --- Slices of the batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", SEVERAL)
def test_slices_make_up_the_batch(count: int) -> None:
    whole: Batch = made(Scenes(), sized("clip"))[3]
    parts = [made(Scenes(), sized("clip"), rank=number, world=count)[3] for number in range(count)]
    for name, tensor in flat(whole).items():
        assert torch.equal(torch.cat([flat(part)[name] for part in parts]), tensor), name


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    for batch, count, pieces in [(8, 2, 1), (8, 4, 1), (8, 2, 2), (8, 2, 4), (7, 1, 7), (12, 2, 3)]:
        check_slices(batch, count, pieces)
    for batch, count, pieces, fits in [(6, 2, 1, "4 or 8"), (8, 3, 1, "6 or 12"), (8, 2, 3, "12"), (3, 2, 1, "4")]:
        with pytest.raises(UserError, match=f"batch: {batch} cannot be shared by {count} processes .* use {fits} "):
            check_slices(batch, count, pieces)


# --- Whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "two"), [("norm1", "norm2"), ("whole1", "pieces2")])
def test_two_processes_train_the_weights_of_one(folder: Path, one: str, two: str) -> None:
    """With synchronised batch norm; and in pieces, in two passes, where the one process takes the batch as a whole."""
    assert (codes(folder, one), codes(folder, two)) == ([0], [0, 0]), "\n".join(said(folder, f"_{two}"))[-4000:]
    alone, shared = newest(folder / one), newest(folder / two)
    start = load_file(folder / one / "checkpoints" / "step_00000000" / "model.safetensors")
    assert alone.step == shared.step == STEPS
    assert alone.tensors["model"].keys() == shared.tensors["model"].keys()
    for name, truth in alone.tensors["model"].items():
        torch.testing.assert_close(shared.tensors["model"][name], truth, rtol=1e-5, atol=1e-5, msg=name)
    moved = [float((truth - start[name]).abs().max()) for name, truth in alone.tensors["model"].items()]
    assert max(moved) > 1e-3
    assert alone.meta | {"seconds": 0} == shared.meta | {"seconds": 0}


@pytest.mark.parametrize(("one", "two"), [("norm1", "norm2"), ("whole1", "pieces2")])
def test_two_processes_leave_one_set_of_files(folder: Path, one: str, two: str) -> None:
    files = [{path.relative_to(folder / run).as_posix() for path in (folder / run).rglob("*")} for run in (one, two)]
    assert files[0] == files[1]
    assert json.loads((folder / two / "env.json").read_text())["processes"] == 2
    lines, truth = measured(folder / two), measured(folder / one)
    assert [line["step"] for line in lines] == [line["step"] for line in truth]
    for line, right in zip(lines, truth, strict=True):
        assert line == pytest.approx(right, rel=1e-4)
    assert "ETA" in said(folder, f"_{two}")[0]
    assert said(folder, f"_{two}")[1] == "", "rank 1 has nothing to say"


def test_sigterm_to_one_rank_stops_all_and_one_process_goes_on(folder: Path) -> None:
    """Begun by two and ended by one, a run has the weights of one that was left alone."""
    assert codes(folder, "stopped") == [143, 143]
    first, second = said(folder, "_stopped")
    assert "stopped at step 2 of 4" in first
    assert second == ""
    assert newest(folder / "stopped").step == 2
    pretraining.resume(folder / "stopped")
    alone, shared = newest(folder / "whole1"), newest(folder / "stopped")
    assert shared.step == STEPS
    for name, truth in alone.tensors["model"].items():
        torch.testing.assert_close(shared.tensors["model"][name], truth, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("run", "teller", "mistake"),
    [("damaged", 1, "all of it is damaged"), ("full", 0, "the disk is full"), ("uneven", 0, "use 4 or 8")],
)
def test_the_mistake_of_one_rank_ends_all_and_is_told_once(folder: Path, run: str, teller: int, mistake: str) -> None:
    assert codes(folder, run) == [2, 2]
    words = said(folder, f"_{run}")
    assert words[teller].count(mistake) == 1
    assert mistake not in words[1 - teller]
    assert not any("Traceback" in text for text in words)
    if run == "uneven":
        assert not (folder / run).exists()


def test_ranks_list_bad_samples_in_one_file(folder: Path) -> None:
    path = folder / "damaged" / "quarantine.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == Quarantine(path).count() > 2
    assert all(row["reason"] == "torn" for row in rows)
