"""The bundle of a run: what turns its checkpoints into a model that stands alone, with a text tower where it has one.

bundle/bundle.yaml        how to build the image encoder, its head into the joint space, and the text tower
bundle/text.safetensors   the text tower of the teacher, where the run did not train one itself
bundle/classes.json       the names of its categories, where it learned some
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import final

from torch import Tensor

from onestage.data.classes import read_classes
from onestage.encoders import ClipText, EncoderSpec
from onestage.predictors import PredictorSpec
from onestage.spec import UserError, from_plain, read_yaml, spec, to_yaml
from onestage.storage import read_safetensors, write_atomic, write_safetensors
from onestage.teachers.category import CategorySide


@final
@spec
class TextSide:
    """The text tower that shares the image encoder's joint space."""

    encoder: ClipText
    trained_as: str | None = None
    """Its name among the run's own encoders; empty where it was copied from a teacher."""
    scale_of: str | None = None
    """The term whose learned temperature is the scale; empty where `scale` holds."""
    scale: float = 100.0
    templates: tuple[str, ...] = ()
    """Prompts that suit the texts it was trained on; empty: CLIP's eighty."""


@final
@spec
class BundleSpec:
    """How to rebuild a run's model from a checkpoint."""

    encoder: EncoderSpec
    name: str
    """The image encoder's name among the run's encoders."""
    average: str | None = None
    """The name of its EMA, where the run keeps one."""
    head_of: str | None = None
    """The term whose predictor leads into the joint space."""
    head: PredictorSpec | None = None
    joint: int | None = None
    text: TextSide | None = None
    category: CategorySide | None = None
    licence: str = "unknown"


def write_bundle(run: Path, bundle: BundleSpec, text: dict[str, Tensor] | None, classes: tuple[str, ...] = ()) -> None:
    """Write the bundle of a run; `text` are the weights of a copied text tower, `classes` the categories' names."""
    folder = run / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        write_safetensors(folder / "text.safetensors", text)
    if classes:
        write_atomic(folder / "classes.json", json.dumps(classes, ensure_ascii=False, indent=0) + "\n")
    write_atomic(folder / "bundle.yaml", to_yaml(bundle))


def read_bundle(run: Path) -> BundleSpec:
    """The bundle of a run.

    Raises:
        UserError: when there is none or it cannot be read.
    """
    path = run / "bundle" / "bundle.yaml"
    if not path.is_file():
        raise UserError(f"{run}: not a run that holds a model (there is no bundle/bundle.yaml in it)")
    return from_plain(BundleSpec, read_yaml(path), str(path))


def read_text_weights(run: Path) -> dict[str, Tensor]:
    """The copied text tower's weights."""
    return read_safetensors(run / "bundle" / "text.safetensors")


def read_names(run: Path) -> tuple[str, ...]:
    """The names of the run's categories; empty where its data named none."""
    path = run / "bundle" / "classes.json"
    return read_classes(path) if path.is_file() else ()
