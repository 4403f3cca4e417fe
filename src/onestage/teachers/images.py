"""The image side of a teacher, as a run keeps it that trains a text encoder beside it (UTA's text encoder, LiT).

A tower of ours is copied into the run, so that the run stands alone; another library's stays where it is published,
and is loaded from there by the reference.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from onestage.predictors import Same
from onestage.roles import Space, Teacher
from onestage.spec import UserError
from onestage.storage import write_safetensors
from onestage.teachers.bundle import IMAGES, BundleSpec, LibraryImage
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.run import RunTeacher
from onestage.teachers.text import TextTower
from onestage.teachers.tower_raw import RawTower

IMAGE = "image"
"""What the copied encoder, its head and its projector are called in a run that did not train them."""


def image_side(teacher: Teacher, space: Space) -> BundleSpec:
    """How the images of a run are read that compares its texts with a teacher's rows in this space.

    Raises:
        UserError: when that is neither a model of ours nor another library's.
    """
    if isinstance(teacher, LibraryTeacher):
        tower = LibraryImage(reference=teacher.reference, space=space, statistics=teacher.statistics)
        return BundleSpec(encoder=tower, name=IMAGE, joint=teacher.width(space), licence=teacher.licence)
    if not isinstance(teacher, RunTeacher):
        raise UserError(f"{teacher.reference}: its image side cannot be kept by a run; use a run, or open_clip: or hf:")
    own = teacher.bundle
    head = own.head if space == "joint" else Same()
    through = dataclasses.replace(own.through, name=IMAGE) if own.through and space == "joint" else None
    return BundleSpec(
        encoder=own.encoder,
        name=IMAGE,
        head_of=IMAGE,
        head=head,
        through=through,
        joint=teacher.width(space),
        licence=own.licence,
    )


def with_texts(teacher: Teacher, bundle: BundleSpec, text: TextTower, scale: float) -> RunTeacher | LibraryTeacher:
    """A teacher's images beside other texts, in the space that `bundle` says."""
    templates = bundle.text.templates if bundle.text else ()
    if isinstance(teacher, LibraryTeacher):
        assert isinstance(bundle.encoder, LibraryImage), "a library's tower is described by where it is"
        tower = RawTower(teacher.tower) if bundle.encoder.space == "raw" else teacher.tower
        return teacher.beside(tower, lambda: text, scale, templates)
    assert isinstance(teacher, RunTeacher) and bundle.head is not None, "see image_side"
    raw, width = isinstance(bundle.head, Same), teacher.encoder.width
    head = bundle.head.build(width, width, teacher.grid) if raw else teacher.head
    projector = None if bundle.through is None else teacher.projector
    return RunTeacher(teacher.reference, bundle, teacher.encoder, projector, head, text, scale, None)


def save_images(run: Path, teacher: RunTeacher, bundle: BundleSpec) -> None:
    """Copy a teacher's image side into the bundle of a run, in a run's own layout."""
    tensors: dict[str, Tensor] = {f"encoders.{IMAGE}.{key}": one for key, one in teacher.encoder.state_dict().items()}
    if teacher.projector is not None and bundle.through is not None:
        kept = teacher.projector.state_dict()
        tensors |= {f"projectors.trained.{IMAGE}.{key}": one for key, one in kept.items()}
    if teacher.head is not None and not isinstance(bundle.head, Same):
        tensors |= {f"predictors.{IMAGE}.{key}": one for key, one in teacher.head.state_dict().items()}
    write_safetensors(run / "bundle" / IMAGES, tensors)
