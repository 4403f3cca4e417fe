"""Runs that are killed and gone on with, in real processes, end as those that were left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from killed import environment, measured, newest
from onestage.storage.checkpoint import latest, load
from small import ROWS, STEPS

pytestmark = pytest.mark.timeout(700)  # the first waits for the runs of all rows, which end within 600 s


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The runs of the rows that are tested now: all of them, or those that `-k` leaves."""
    folder = tmp_path_factory.mktemp("runs")
    here = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    tested = {item.callspec.params["row"] for item in here if hasattr(item, "callspec")} | {"supervised"}
    rows = [row for row in ROWS if row in tested]
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(folder), *rows]
    with (folder / "log.txt").open("w") as log:  # a file: loading processes outlive a killed run for a while
        done = subprocess.run(command, env=environment(), stdout=log, stderr=log, timeout=600, check=False)
    assert done.returncode == 0, (folder / "log.txt").read_text()[-4000:]
    return folder


@pytest.mark.parametrize("row", list(ROWS))
def test_a_run_killed_twice_ends_as_one_left_alone(row: str, runs: Path) -> None:
    killed = -signal.SIGKILL
    log = (runs / "log.txt").read_text()[-3000:]
    assert json.loads((runs / row / "codes.json").read_text()) == [0, killed, killed, 0], log
    whole, broken = (newest(runs / row / name) for name in ("whole", "broken"))
    assert whole.step == broken.step == STEPS
    assert whole.tensors.keys() == broken.tensors.keys() == {"model", "optimiser"}
    for file, tensors in whole.tensors.items():
        assert tensors.keys() == broken.tensors[file].keys()
        differing = [name for name, tensor in tensors.items() if not torch.equal(tensor, broken.tensors[file][name])]
        assert not differing, f"{file}: {len(differing)} of {len(tensors)} differ, {differing[:3]}"
    assert whole.meta | {"seconds": 0} == broken.meta | {"seconds": 0}


@pytest.mark.parametrize("row", list(ROWS))
def test_metrics_of_a_killed_run_are_those_of_one_left_alone(row: str, runs: Path) -> None:
    whole, broken = (measured(runs / row / name) for name in ("whole", "broken"))
    assert [record["step"] for record in whole if "loss" in record] == list(range(1, STEPS + 1))
    assert broken == whole


def test_training_changed_everything_that_is_compared(runs: Path) -> None:
    """Else equal tensors would say little."""
    path = latest(runs / "supervised" / "whole" / "checkpoints")
    assert path is not None
    steps = sorted(int(folder.name.removeprefix("step_")) for folder in path.parent.glob("step_*"))
    early, late = load(path.parent / f"step_{steps[0]:08d}").tensors, load(path).tensors
    assert steps[0] < steps[-1] == STEPS
    assert any("running_mean" in name for name in late["model"])
    for file in ("model", "optimiser"):
        still = [name for name, tensor in late[file].items() if torch.equal(early[file][name], tensor)]
        assert set(still) <= {"likelihoods.category.log_scale"}, "a fixed temperature"


def test_nothing_half_written_stays_behind(runs: Path) -> None:
    broken = list(runs.glob("*/broken"))
    assert broken
    for run in broken:
        names = {path.name for path in (run / "checkpoints").iterdir()}
        assert {name for name in names if not name.startswith("step_")} == {"LATEST"}
