"""A bench that is killed leaves no process behind, and what it trained can be gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killed import environment
from onestage.pretraining import resume
from onestage.spec import to_yaml
from small import small

BENCH = """
import sys
from pathlib import Path
from onestage.bench.trained import trained
from onestage.pretraining import Recipe
from onestage.spec import from_plain, read_yaml
file = Path(sys.argv[1])
trained(from_plain(Recipe, read_yaml(file)), file.with_name("run"), file)
"""


def within(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether something comes to be in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.05)
    return False


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_bench_trains_ends_with_it(how: signal.Signals, tmp_path: Path) -> None:
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(to_yaml(small("mae", steps=200_000)))
    with subprocess.Popen([sys.executable, "-c", BENCH, str(file)], env=environment()) as bench:
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        try:
            assert within(60, lambda: len(list((run / "checkpoints").glob("step_*"))) > 2), "nothing was trained"
            (child,) = (int(word) for word in children.read_text().split())
        finally:
            os.kill(bench.pid, how)
    assert within(30, lambda: not alive(child)), "the child lives on"
    assert "go on with: onestage pretrain --resume" in file.with_suffix(".log").read_text()
    told: list[str] = []
    resumed = (run / "run.yaml").read_text().replace("steps: 200000", f"steps: {newest(run) + 1}")
    (run / "run.yaml").write_text(resumed)
    assert resume(run, told.append).step == newest(run)


def newest(run: Path) -> int:
    return max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*"))
