"""Frozen models by reference. They stay outside the objective, its wrappers and its checkpoints.

RUN[@STEP|@best][:student|:ema]     a run of ours
open_clip:NAME/TAG                  published weights of an open_clip architecture
open_clip:NAME/FILE                 an open_clip architecture with a local file of weights
open_clip:local-dir:DIR             a folder with open_clip_config.json and its weights
timm:NAME[@FILE]                    published weights of a timm model, or a local file of them
timm:local-dir:DIR                  a folder with timm's config.json and its weights
hf:NAME_OR_DIR                      a model of transformers
uta:FILE                            a checkpoint as UTA's authors released it
dalle:FILE                          DALL-E's image tokenizer, converted: a code book
"""

from __future__ import annotations

import torch

from onestage.roles import Teacher
from onestage.spec import UserError
from onestage.teachers.bundle import BundleSpec, LibraryImage, TextSide, read_bundle, write_bundle
from onestage.teachers.dalle import DalleTeacher, load_dalle
from onestage.teachers.forms import COLUMNS, FORMS, REFERENCES, TABLE
from onestage.teachers.images import image_side, save_images, with_texts
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.line import Line, line_between
from onestage.teachers.run import RunTeacher, load_run, model_of, text_of
from onestage.teachers.stored import Stored, image_weights, parse_run, stored_run, text_weights, under

AnyTeacher = RunTeacher | LibraryTeacher | DalleTeacher
NO_RUNS = ("open_clip:", "timm:", "hf:", "uta:", "dalle:")


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
    if reference.startswith("uta:"):
        from onestage.teachers.released_uta import load_uta

        return load_uta(reference, device)
    if reference.startswith("dalle:"):
        return load_dalle(reference, device)
    run, step, which = parse_run(reference)
    stored = stored_run(run, step)
    image, side = stored.bundle.encoder, stored.bundle.text
    if isinstance(image, LibraryImage) and side is not None:
        return with_texts(load(image.reference, device), stored.bundle, *text_of(stored, side, device))
    return model_of(reference, stored, which, None, device)


def load_random(reference: str, seed: int, device: torch.device | None = None) -> RunTeacher:
    """The model of a run with its image encoder drawn at random: the baseline of an evaluation."""
    if reference.startswith(NO_RUNS):
        raise UserError(f"{reference}: a random baseline is drawn for runs only")
    run, step, which = parse_run(reference)
    return load_run(run, step, which, seed, device or torch.device("cpu"))


def read_stored(reference: str) -> tuple[Stored, str]:
    """A model in our own layout, to start from, and which of its encoders is meant: `student` or `ema`.

    Raises:
        UserError: when it leads nowhere, or none of our encoders is made like it.
    """
    if reference.startswith("uta:"):
        from onestage.teachers.released_uta import stored_uta

        return stored_uta(reference), "student"
    if reference.startswith(NO_RUNS):
        from onestage.teachers.start import stored_library

        found = load(reference)
        if not isinstance(found, LibraryTeacher):
            raise UserError(f"{reference}: a tokenizer is no model that a run can start from")
        return stored_library(found), "student"
    run, step, which = parse_run(reference)
    return stored_run(run, step), which


__all__ = [
    "COLUMNS",
    "FORMS",
    "NO_RUNS",
    "REFERENCES",
    "TABLE",
    "AnyTeacher",
    "BundleSpec",
    "DalleTeacher",
    "LibraryImage",
    "LibraryTeacher",
    "Line",
    "RunTeacher",
    "Stored",
    "Teacher",
    "TextSide",
    "image_side",
    "image_weights",
    "line_between",
    "load",
    "load_random",
    "model_of",
    "parse_run",
    "read_bundle",
    "read_stored",
    "save_images",
    "text_weights",
    "under",
    "with_texts",
    "write_bundle",
]
