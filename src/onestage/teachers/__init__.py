"""Frozen models by reference. They stay outside the objective, its wrappers and its checkpoints.

RUN[@STEP|@best][:student|:ema]     a run of ours
open_clip:NAME/TAG                  published weights of an open_clip architecture
open_clip:NAME/FILE                 an open_clip architecture with a local file of weights
open_clip:local-dir:DIR             a folder with open_clip_config.json and its weights
timm:NAME[@FILE]                    published weights of a timm model, or a local file of them
timm:local-dir:DIR                  a folder with timm's config.json and its weights
hf:NAME_OR_DIR                      a model of transformers
"""

from __future__ import annotations

from pathlib import Path

import torch

from onestage.roles import Teacher
from onestage.spec import UserError
from onestage.teachers.bundle import BundleSpec, TextSide, read_bundle, write_bundle
from onestage.teachers.forms import COLUMNS, FORMS, REFERENCES, TABLE
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.run import RunTeacher, load_run

AnyTeacher = RunTeacher | LibraryTeacher
LIBRARIES = ("open_clip:", "timm:", "hf:")


def load(reference: str, device: torch.device | None = None) -> AnyTeacher:
    """A frozen model.

    Raises:
        UserError: when the reference leads nowhere or the model cannot be used.
    """
    device = device or torch.device("cpu")
    if reference.startswith("open_clip:"):
        from onestage.teachers.open_clip import load_open_clip

        return load_open_clip(reference, device)
    if reference.startswith("timm:"):
        from onestage.teachers.timm import load_timm

        return load_timm(reference, device)
    if reference.startswith("hf:"):
        from onestage.teachers.hf import load_hf

        return load_hf(reference, device)
    run, step, which = parse_run(reference)
    return load_run(run, step, which, None, device)


def load_random(reference: str, seed: int, device: torch.device | None = None) -> RunTeacher:
    """The model of a run with its image encoder drawn at random: the baseline of an evaluation."""
    if reference.startswith(LIBRARIES):
        raise UserError(f"{reference}: a random baseline is drawn for runs only")
    run, step, which = parse_run(reference)
    return load_run(run, step, which, seed, device or torch.device("cpu"))


def parse_run(reference: str) -> tuple[Path, str | None, str]:
    """A reference to a run as (folder, step or `best` or None, `student` or `ema`).

    Raises:
        UserError: when it is not the folder of a run.
    """
    path, which = reference, "student"
    for name in ("student", "ema"):
        if path.endswith(f":{name}"):
            path, which = path.removesuffix(f":{name}"), name
    step = None
    if "@" in path and not Path(path).exists():
        path, step = path.rsplit("@", 1)
    if not (Path(path) / "run.yaml").is_file():
        what = "there is no such folder" if not Path(path).exists() else "it holds no run.yaml"
        raise UserError(f"{reference}: not a model ({what}). A model is {FORMS}.")
    return Path(path), step, which


__all__ = [
    "COLUMNS",
    "FORMS",
    "REFERENCES",
    "TABLE",
    "AnyTeacher",
    "BundleSpec",
    "LibraryTeacher",
    "RunTeacher",
    "Teacher",
    "TextSide",
    "load",
    "load_random",
    "parse_run",
    "read_bundle",
    "write_bundle",
]
