"""A model in our own layout, wherever it came from: how it is built, and its weights by a run's names for them.

`encoders.NAME.*` are the encoders, `predictors.TERM.*` the heads, `likelihoods.TERM.log_scale` a learned temperature.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from onestage.encoders import ClipText
from onestage.spec import UserError
from onestage.storage import load_checkpoint, read_safetensors
from onestage.teachers.bundle import IMAGES, BundleSpec, read_bundle
from onestage.teachers.forms import FORMS
from onestage.teachers.text import WEIGHTS


class Stored(NamedTuple):
    """A model on disk. `folder` is where its bundle stands, or the file that it came from."""

    folder: Path
    bundle: BundleSpec
    weights: dict[str, Tensor]


def stored_run(run: Path, step: str | None) -> Stored:
    """A checkpoint of a run: the newest, or that of a step, or the best.

    Raises:
        UserError: when the run holds no such checkpoint.
    """
    bundle, weights = read_bundle(run), load_checkpoint(run, step).tensors["model"]
    copied = run / "bundle" / IMAGES
    return Stored(run, bundle, weights | read_safetensors(copied) if copied.is_file() else weights)


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


def under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin so, without that beginning."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def image_weights(stored: Stored, which: str) -> dict[str, Tensor]:
    """Weights of the image encoder: the student's, or those of its average where it is asked for and kept."""
    bundle = stored.bundle
    name = bundle.average if which == "ema" and bundle.average is not None else bundle.name
    return under(stored.weights, f"encoders.{name}.")


def text_weights(stored: Stored) -> dict[str, Tensor]:
    """Weights of its CLIP text tower, trained or copied from a teacher; none where it has no such tower."""
    side = stored.bundle.text
    if side is None or not isinstance(side.encoder, ClipText):
        return {}
    if side.trained_as is not None:
        return under(stored.weights, f"encoders.{side.trained_as}.")
    return read_safetensors(stored.folder / "bundle" / WEIGHTS)
