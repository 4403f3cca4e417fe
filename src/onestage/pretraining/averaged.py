"""An average of two runs as a run: it is evaluated, reported and started from as any other (WiSE-FT)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onestage.encoders import ClipText
from onestage.pretraining.directory import create, read_run
from onestage.pretraining.loop import Progressed
from onestage.storage import load_checkpoint, save, write_atomic
from onestage.teachers import Line, parse_run, write_bundle
from onestage.teachers.bundle import open_text, read_names

FILE = "average.json"
"""What the average is between, and what evaluations found along the line."""


def write_average(line: Line, alpha: float, second: str, out: Path, told: dict[str, Any], command: list[str]) -> Path:
    """Write the model at `alpha` of a line as a finished run.

    Args:
        second: the run at the end of the line, whose recipe and steps are taken over.
        told: what `average.json` says.

    Raises:
        UserError: when the directory holds something already or cannot be written.
    """
    run, step, _ = parse_run(second)
    steps = max(load_checkpoint(run, step).step, 1)
    create(out, replace(read_run(run), steps=steps, epochs=None), command)
    side, copied = line.bundle.text, None
    if side is not None and not isinstance(side.encoder, ClipText):
        copied = open_text(line.folder, side, None, torch.device("cpu"))
    write_bundle(out, line.bundle, copied, read_names(line.folder) if line.bundle.category else ())
    save(out / "checkpoints", steps, {"model": line.at(alpha).weights}, Progressed(step=steps)._asdict(), keep=1)
    write_atomic(out / FILE, json.dumps(told, indent=1) + "\n")
    return out
