"""The directory of a run. What holds a `run.yaml` is a run, and a run is never overwritten."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from onestage.distributed import world
from onestage.pretraining.spec import Recipe
from onestage.roles import Teacher
from onestage.spec import UserError, from_plain, read_yaml, to_yaml
from onestage.storage import write_atomic

PACKAGES = ("onestage", "torch", "torchvision", "timm", "open_clip_torch", "numpy", "pillow", "safetensors")


def refuse_taken(out: Path) -> None:
    """Nothing is overwritten: an `--out` must not exist, or be an empty directory.

    Raises:
        UserError: when it holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "a run" if (out / "run.yaml").is_file() else "something else"
        raise UserError(
            f"{out}: holds {what} already, and nothing is ever overwritten. Choose another --out"
            + (f", or go on with it: onestage pretrain --resume {out}" if what == "a run" else ".")
        )


def create(out: Path, recipe: Recipe, command: list[str]) -> None:
    """Make a run's directory with its `run.yaml` and `env.json`.

    Raises:
        UserError: when the directory holds something already or cannot be written.
    """
    refuse_taken(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "run.yaml", to_yaml(recipe))
        write_atomic(out / "env.json", json.dumps(environment(command), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None


def read_run(run: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UserError: when the folder is not a run.
    """
    path = run / "run.yaml"
    if not path.is_file():
        raise UserError(f"{run}: not a run (there is no run.yaml in it)")
    return from_plain(Recipe, read_yaml(path), str(path))


def environment(command: list[str]) -> dict[str, object]:
    """What a result may depend on: versions, machine, threads and the command."""
    return {
        "command": command,
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def licences(teachers: dict[str, Teacher]) -> str:
    """The licences of a run's teachers in one line; a model learned from them may be bound by them."""
    return "; ".join(f"{name}: {teacher.licence}" for name, teacher in teachers.items()) or "no teacher"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
