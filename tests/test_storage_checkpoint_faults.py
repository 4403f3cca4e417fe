"""Checkpoints whose writer is killed at each of its file operations, or refused by the system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onestage.storage import checkpoint

KILLER = """
import json, os, resource, shutil, sys
from pathlib import Path
import torch
from onestage.storage import checkpoint
from onestage.spec import UserError

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # a killed process loses nothing that the system has


def tensors(step):
    return {"model": {"w": torch.full((300,), float(step))}, "ema": {"w": torch.full((300,), -float(step))}}


def die_at(k):
    "Count every call that changes files; die before or after call k // 2, or halfway through writing a file."
    calls = 0

    def count():
        nonlocal calls
        calls += 1
        if calls == k:
            os._exit(9)

    def wrap(owner, name):
        inner = getattr(owner, name)

        def counted(*args, **kwargs):
            count()
            result = inner(*args, **kwargs)
            count()
            return result

        setattr(owner, name, counted)

    def half_written(save_file):
        def wrapped(named, path):
            save_file(named, path)
            if calls == k - 1:
                os.truncate(path, path.stat().st_size // 2)
            count()

        return wrapped

    checkpoint.save_file = half_written(checkpoint.save_file)
    for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
        wrap(os, name)
    return lambda: calls


def child(folder, k, resave):
    done = die_at(k)
    checkpoint.save(folder, 200 if resave else 300, tensors(9), {"new": True}, 1)
    os._exit(0 if done() < k else 1)


def states(folder):
    "What a reader finds: the newest complete checkpoint, checked through and through."
    path = checkpoint.latest(folder)
    found = checkpoint.load(path)
    value = float(found.tensors["model"]["w"][0])
    assert torch.equal(found.tensors["model"]["w"], torch.full((300,), value))
    assert torch.equal(found.tensors["ema"]["w"], torch.full((300,), -value))
    assert found.meta["new"] == (value == 9)
    return found.step, value


def forked(action):
    "The exit code of a child process that does this."
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_everywhere(base, root, resave):
    seen = []
    for k in range(1, 500):
        folder = Path(shutil.copytree(base, root / f"k{k}"))
        code = forked(lambda: child(folder, k, resave))
        complete = (folder / "step_00000300").exists()
        step, value = states(folder)
        for path in folder.glob("step_*"):
            checkpoint.load(path)  # whatever bears the name of a step is whole
        checkpoint.save(folder, 400, tensors(9), {"new": True}, 1)
        left = sorted(path.name for path in folder.iterdir())
        seen.append({"code": code, "step": step, "value": value, "complete": complete, "left": left})
        if code != 9:
            return seen


def too_large(folder):
    "A write error from the system itself, through safetensors."
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        checkpoint.save(folder, 300, {"model": {"w": torch.ones(10_000)}}, {}, 1)
    except UserError as error:
        (folder / "message").write_text(str(error))
        os._exit(0)


root = Path(sys.argv[1])
base = root / "base"
for step in (100, 200):
    checkpoint.save(base, step, tensors(step), {"new": False}, 2)
result = {mode: kill_everywhere(base, root / mode, mode == "resave") for mode in ("new", "resave")}
result["code"] = forked(lambda: too_large(base))
result["message"] = (base / "message").read_text()
result["left"] = sorted(path.name for path in base.iterdir())
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of checkpoints whose writer met a fault, all from one process that forks the writers."""
    ran = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path_factory.mktemp("faults"))],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(checkpoint.__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("mode", ["new", "resave"])
def test_killed_at_any_file_operation_the_newest_complete_checkpoint_loads(faults: dict[str, Any], mode: str) -> None:
    seen = faults[mode]
    assert seen[-1]["code"] == 0, "the last writer outlived all its operations"
    assert all(entry["code"] == 9 for entry in seen[:-1])
    assert len(seen) > 30, "every operation was tried"
    values = [entry["value"] for entry in seen]
    assert values == sorted(values, reverse=True), "once the new checkpoint is found it stays found"
    assert {values[0], values[-1]} == {200.0, 9.0}
    for entry in seen:
        expected = 300 if mode == "new" and entry["complete"] else 200
        assert entry["step"] == expected, entry
        assert entry["left"] == ["LATEST", "step_00000400"], "what a killed save left is cleared by the next"


def test_a_write_error_of_the_system_is_told_and_cleared(faults: dict[str, Any]) -> None:
    assert faults["code"] == 0
    assert "step_00000300: the checkpoint cannot be written" in faults["message"]
    assert faults["left"] == ["LATEST", "message", "step_00000100", "step_00000200"]
