"""What is written to disk and read back: checkpoints, small text files, files of tensors. No pickle anywhere."""

from __future__ import annotations

from pathlib import Path

from onestage.spec import UserError
from onestage.storage.checkpoint import Checkpoint, latest, load, read_tensors, save, write_atomic
from onestage.storage.files import read_safetensors, write_safetensors


def load_checkpoint(run: Path, step: str | None) -> Checkpoint:
    """A checkpoint of a run: the newest complete one, or that of a step, or the best.

    Raises:
        UserError: when there is none, with the steps that there are.
    """
    folder = run / "checkpoints"
    if step is None or step == "best":
        newest = latest(folder)
        if newest is None:
            raise UserError(f"{run}: holds no complete checkpoint yet")
        best = load(newest)
        wanted = best.meta.get("best_step") if step == "best" else None
        return best if wanted is None else load(folder / f"step_{int(wanted):08d}")
    names = sorted(path.name for path in folder.glob("step_*"))
    path = folder / f"step_{int(step):08d}" if step.isdigit() else None
    if path is None or not path.is_dir():
        kept = ", ".join(str(int(name.removeprefix("step_"))) for name in names if name.removeprefix("step_").isdigit())
        raise UserError(f"{run}@{step}: there is no such checkpoint; kept are the steps {kept or '(none)'}, or @best")
    return load(path)


__all__ = [
    "Checkpoint",
    "latest",
    "load",
    "load_checkpoint",
    "read_safetensors",
    "read_tensors",
    "save",
    "write_atomic",
    "write_safetensors",
]
