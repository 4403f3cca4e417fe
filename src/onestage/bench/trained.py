"""A recipe trained in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from onestage.pretraining import Chain, Recipe, finished, is_chain
from onestage.spec import UserError, to_yaml
from onestage.storage import load_checkpoint, write_atomic

SHOWN = 600
"""Characters of a failed run's output in the message."""


class Cost(NamedTuple):
    """What a run took: seconds of training, and MiB of main memory at most (after a resume: of its last part)."""

    seconds: float
    peak_mib: float | None


def trained(recipe: Recipe | Chain, run: Path, file: Path) -> Cost:
    """Train a recipe or a chain into `run`, going on where an earlier attempt was.

    Args:
        file: where the recipe is written, for the process that trains it.

    Raises:
        UserError: when the run fails, with what it said.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not ((run / "run.yaml").exists() or is_chain(run)):
        write_atomic(file, to_yaml(recipe))
    log = file.with_suffix(".log")
    command = [sys.executable, "-m", "onestage.bench.child", str(file), str(run)]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")[-SHOWN:].strip()
        raise UserError(f"{run}: training ended with code {process.returncode}; its output is in {log}:\n{said}")
    return Cost(_seconds(run), round(usage.ru_maxrss / 1024, 1))


def _seconds(run: Path) -> float:
    if is_chain(run):
        return round(sum(stage.seconds for stage in finished(run)), 1)
    return round(float(load_checkpoint(run, None).meta["seconds"]), 1)
