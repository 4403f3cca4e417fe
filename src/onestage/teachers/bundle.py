"""The bundle of a run: what turns its checkpoints into a model that stands alone, with a text tower where it has one.

bundle/bundle.yaml        how to build the image encoder, its head into the joint space, and the text tower
bundle/image.safetensors  the image side of the teacher, where the run trained a text tower beside it alone
bundle/text.safetensors   the text tower of the teacher, where the run did not train one itself and it is CLIP's
bundle/text/              the same where it is another one: in its own library's files, with its tokenizer
bundle/classes.json       the names of its categories, where it learned some
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, final

import torch
from pydantic import Discriminator
from torch import Tensor

from onestage.data.classes import read_classes
from onestage.encoders import ClipText, EncoderSpec
from onestage.predictors import PredictorSpec, Quantised
from onestage.roles import Space
from onestage.spec import UserError, from_plain, read_yaml, spec, to_yaml
from onestage.storage import read_safetensors, write_atomic
from onestage.teachers.category import CategorySide, Through
from onestage.teachers.text import WEIGHTS, TextSpec, TextTower, clip_words

IMAGES = "image.safetensors"


@final
@spec
class LibraryImage:
    """An image tower of another library, which is loaded from where it is published."""

    reference: str
    space: Space = "joint"
    """Which of its rows texts are compared with."""
    statistics: str = "own"
    """Name of the statistics that its pixels are normalised by, or `own`."""
    kind: Literal["library_image"] = "library_image"


ImageSpec = Annotated[EncoderSpec | LibraryImage, Discriminator("kind")]


@final
@spec
class TextSide:
    """The text tower that shares the image encoder's joint space."""

    encoder: TextSpec
    trained_as: str | None = None
    """Its name among the run's own encoders; empty where it was copied from a teacher."""
    scale_of: str | None = None
    """The term whose learned temperature is the scale; empty where `scale` holds."""
    scale: float = 100.0
    templates: tuple[str, ...] = ()
    """Prompts that suit the texts it was trained on; empty: CLIP's eighty."""


@final
@spec
class BookSide:
    """How to rebuild the code book of a run that has one outside of its joint space."""

    term: str
    predictor: Quantised
    out: int
    """Width of what its decoder guesses."""


@final
@spec
class BundleSpec:
    """How to rebuild a run's model from a checkpoint."""

    encoder: ImageSpec
    name: str
    """The image encoder's name among the run's encoders."""
    average: str | None = None
    """The name of its EMA, where the run keeps one."""
    head_of: str | None = None
    """The term whose predictor leads into the joint space."""
    head: PredictorSpec | None = None
    through: Through | None = None
    """The projector between the encoder and that head."""
    joint: int | None = None
    text: TextSide | None = None
    category: CategorySide | None = None
    book: BookSide | None = None
    pool: Literal["cls", "mean"] = "cls"
    """What stands for an image, unless one says otherwise."""
    licence: str = "unknown"


def write_bundle(run: Path, bundle: BundleSpec, text: TextTower | None, classes: tuple[str, ...] = ()) -> None:
    """Write the bundle of a run, the text tower that it copies from its teacher, and its categories' names."""
    folder = run / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        text.save(folder)
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


def read_names(run: Path) -> tuple[str, ...]:
    """The names of the run's categories; empty where its data named none."""
    path = run / "bundle" / "classes.json"
    return read_classes(path) if path.is_file() else ()


def open_text(run: Path, side: TextSide, trained: dict[str, Tensor] | None, device: torch.device) -> TextTower:
    """The text tower of a run.

    Args:
        trained: its weights where the run trained it; None where the bundle holds a copy.

    Raises:
        UserError: when its files are missing or damaged, or their library is not installed.
    """
    folder = run / "bundle"
    if isinstance(side.encoder, ClipText):
        return clip_words(side.encoder, read_safetensors(folder / WEIGHTS) if trained is None else trained, device)
    if side.encoder.library == "open_clip":
        from onestage.teachers import text_open_clip

        return text_open_clip.open_text(folder, device)
    try:
        from onestage.teachers import text_hf
    except ImportError:
        raise UserError(f"{run}: its text tower is one of transformers: pip install 'onestage[hf]'") from None
    return text_hf.open_text(folder, device)
