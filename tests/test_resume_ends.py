"""SIGTERM, and resuming what is finished, not begun, taken or changed."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from killed import begin, environment, newest
from onestage import cli, pretraining
from onestage.engine.metrics import read_metrics
from onestage.pretraining import Saving, loop
from onestage.spec import UserError, to_yaml
from small import BATCH, small

# --- SIGTERM ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Path, int, str]]:
    """A run with a loading process, whose whole process group was sent SIGTERM; its exit code and what it said."""
    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(small("averaged", steps=1_000_000, workers=1, saving=Saving(minutes=0.002))))
    command = [sys.executable, "-m", "onestage", "pretrain", str(recipe), "--out", str(run)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until and newest_step(run) < 2:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    finally:
        if process.poll() is None:
            process.kill()
    yield run, process.returncode, said


def newest_step(run: Path) -> int:
    names = [path.name for path in run.glob("checkpoints/step_*")]
    return max((int(found[1]) for name in names if (found := re.fullmatch(r"step_(\d+)", name))), default=0)


def test_sigterm_saves_and_exits_143(stopped: tuple[Path, int, str]) -> None:
    run, code, said = stopped
    step = newest_step(run)
    assert code == 143, said
    assert step >= 2
    assert f"stopped at step {step} of 1000000" in said
    assert f"onestage pretrain --resume {run}" in said
    assert "Traceback" not in said
    assert newest(run).step == step
    assert read_metrics(run / "metrics.jsonl") == [] or read_metrics(run / "metrics.jsonl")[-1]["step"] <= step


def test_after_training_sigterm_means_what_it_meant_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    begin(small("averaged", steps=1), tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_loading_process_ends_the_run_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error rises wherever the signal finds the run, which is not seen by whoever types."""
    run = tmp_path / "run"

    def kill(seed: int, step: int) -> int:
        for child in multiprocessing.active_children() if step == 2 else ():
            child.kill()
        return seed

    monkeypatch.setattr(loop, "step_seed", kill)
    with pytest.raises(UserError, match=f"a loading process was killed.*onestage pretrain --resume {run} --workers 0"):
        begin(small("averaged", steps=1_000_000, workers=1, saving=Saving(minutes=0.0001)), run)
    assert newest(run).step >= 2


# --- Resuming what is finished, not begun, taken or changed ----------------------------------------------------------


def test_resuming_a_finished_run_exits_0_and_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    begin(small("averaged", steps=2), tmp_path / "run")
    before = contents(tmp_path / "run")
    assert cli.command(["pretrain", "--resume", str(tmp_path / "run")]) == 0
    assert "finished (2 of 2 steps)" in capfd.readouterr().err
    assert contents(tmp_path / "run") == before


def test_resuming_a_run_without_a_checkpoint_starts_at_0(tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    begin(small("averaged", steps=3), run)
    first = newest(run)
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "bundle")
    pretraining.resume(run, said.append)
    again = newest(run)
    assert "starting at step 0" in said[0]
    assert (run / "bundle" / "bundle.yaml").is_file()
    assert again.step == 3
    for file, tensors in first.tensors.items():
        assert all(torch.equal(tensor, again.tensors[file][name]) for name, tensor in tensors.items())
    assert len([record for record in read_metrics(run / "metrics.jsonl") if record["step"] == 3]) == 1


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(small("averaged", steps=3), run)
    first = newest(run)
    file = run / "checkpoints" / "step_00000003" / "model.safetensors"
    damaged = bytes([*file.read_bytes()[:-1], 0x55])
    file.unlink()  # its tensors were read by mapping the file, which stays as it was
    file.write_bytes(damaged)
    said: list[str] = []
    pretraining.resume(run, said.append)
    assert "going on at step 2" in said[0]
    again = newest(run).tensors["model"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.tensors["model"].items())


@pytest.mark.parametrize("holding", ["run.yaml", "notes.txt"])
def test_a_directory_that_holds_something_is_refused_and_untouched(holding: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / holding).write_text("mine")
    with pytest.raises(UserError, match="nothing is ever overwritten"):
        begin(small("averaged", steps=1), tmp_path / "run")
    assert contents(tmp_path / "run") == {holding: b"mine"}


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="nothing is ever overwritten"):
        begin(small("averaged", steps=1), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    begin(small("averaged", steps=1), tmp_path / "run")
    assert newest(tmp_path / "run").step == 1


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        pretraining.resume(tmp_path)


def test_changed_data_are_refused(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for number in range(BATCH):
        Image.new("RGB", (40, 36), (20 * number, 90, 200)).save(data / f"{number}.png")
    begin(small("averaged", steps=2, data=str(data)), run)
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    before = contents(run)
    Image.new("RGB", (40, 36)).save(data / "one_more.png")
    with pytest.raises(UserError, match="have changed since step 1"):
        pretraining.resume(run)
    assert contents(run) == before
    (data / "one_more.png").unlink()
    pretraining.resume(run)
    assert newest(run).step == 2


def test_a_run_goes_on_where_its_data_were_moved_to_with_other_workers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As it would have, to rounding: sums of other numbers of threads and pieces differ in their last bits. What is
    written of the run stays."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for number in range(BATCH):
        Image.new("RGB", (40, 36), (20 * number, 90, 200)).save(data / f"{number}.png")
    begin(small("averaged", steps=2, data=str(data), workers=0), run)
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    pretraining.resume(run)
    whole, written = read_metrics(run / "metrics.jsonl")[-1], (run / "run.yaml").read_bytes()
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    data.rename(tmp_path / "moved")
    assert cli.command(["pretrain", "--resume", str(run)]) == 2
    assert str(data) in capfd.readouterr().err
    words = ["pretrain", "--resume", str(run), "--data", str(tmp_path / "moved"), "--workers", "1"]
    for more in ([], ["--accumulate", "2"]):
        shutil.rmtree(run / "checkpoints" / "step_00000002", ignore_errors=True)
        assert cli.command([*words, *more]) == 0
        assert newest(run).step == 2 and (run / "run.yaml").read_bytes() == written
        again = read_metrics(run / "metrics.jsonl")[-1]
        assert again["loss"] == pytest.approx(whole["loss"], rel=1e-5) and again["step"] == 2
        assert again["norm"] == pytest.approx(whole["norm"], rel=1e-4)
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    Image.new("RGB", (40, 36)).save(tmp_path / "moved" / "one_more.png")
    assert cli.command(words) == 2
    assert "have changed since step 1" in capfd.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
