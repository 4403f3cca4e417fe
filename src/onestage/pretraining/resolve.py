"""Filling in what a recipe leaves open: the student's size from the teacher's grid, and the views' sizes."""

from __future__ import annotations

import dataclasses

from onestage.encoders import ClipImage, ClipText, ConvNext, EncoderSpec, Multiway, Swin, Vit
from onestage.encoders.swin import CELL
from onestage.evaluation.labels import check_names
from onestage.objective import Answers, Method, asks
from onestage.pretraining.spec import Recipe
from onestage.roles import Source, Teacher
from onestage.spec import UserError
from onestage.targets import Encoded, Hog, Pixels, Table
from onestage.teachers import LibraryTeacher, RunTeacher
from onestage.views import ViewSpec


def resolve(recipe: Recipe, teachers: dict[str, Teacher]) -> Recipe:
    """The same recipe with every size explicit.

    An image encoder without a size gets the one whose grid is its teacher's, else its architecture's own; a view
    without a size gets that of the encoder which sees it, or which explains it, or of the teacher which alone sees it.
    Sizes that were set stay. A text tower whose rows are compared with a teacher's as they are is as wide as these.

    Raises:
        UserError: for a size that patches do not fill, or a view of another size than the encoder which sees it.
    """
    follow = next((teacher.grid[0] for teacher in teachers.values()), None)
    models = {name: _sized(name, model, follow) for name, model in recipe.models.items()}
    models |= _as_wide(recipe.method, models, teachers)
    check_clips(recipe.method, models)
    method = dataclasses.replace(recipe.method, views=_views(recipe.method, models, teachers))
    return dataclasses.replace(recipe, models=models, method=method)


def answers_of(teachers: dict[str, Teacher]) -> dict[str, Answers]:
    """What the objective must know of the teachers; 0 for a joint space that a teacher does not have."""
    return {
        name: Answers(
            t.grid,
            _joint(t),
            t.width("raw"),
            t.codes,
            0 if t.categories is None else t.categories.count,
            t.look if isinstance(t, (RunTeacher, LibraryTeacher)) else None,
        )
        for name, t in teachers.items()
    }


def check_categories(method: Method, teachers: dict[str, Teacher], source: Source) -> None:
    """A teacher whose categories are explained must have those of the data, where these have labels that are learned.

    Raises:
        UserError: when they are others, saying both.
    """
    for name in {ask.encoder for ask in asks(method) if ask.space == "categories"} if method.needs_labels else ():
        head = teachers[name].categories
        assert head is not None, "loading asks for the width of its categories"
        if head.names:
            check_names(f"teacher '{name}'", teachers[name].reference, head.names, source.name, source.classes)
        elif head.count != len(source.classes):
            raise UserError(
                f"teacher '{name}': {teachers[name].reference} tells {head.count} categories apart, but {source.name} "
                f"has {len(source.classes)}; both must have the same"
            )


def check_clips(method: Method, models: dict[str, EncoderSpec]) -> None:
    """Encoders see as many frames as they are made for, and of clips only rows of the same view are explained.

    Raises:
        UserError: saying both numbers of frames, or what clips cannot be used for.
    """
    counts = {name: 1 if view.frames is None else view.frames.count for name, view in method.views.items()}
    for view, encoder in _seen_by(method):
        model, count = models.get(encoder), counts.get(view, 1)
        made_for = model.frames if isinstance(model, Vit) else 1
        if view in counts and count != made_for:
            right = f"{{count: {made_for}}}" if made_for > 1 else "null"
            raise UserError(
                f"method.views.{view}.frames: {count} of a clip, but '{encoder}' is made for {made_for}; set "
                f"models.{encoder}.frames: {count} (of a vit), or method.views.{view}.frames: {right}"
            )
    for ask in asks(method):
        if counts.get(ask.view, 1) > 1:
            raise UserError(f"method.views.{ask.view}.frames: '{ask.encoder}' looks at pictures, not at clips")
    for name, asked in method.inputs.items():
        if asked.mix is not None and any(counts.get(part.of, 1) > 1 for part in asked.parts.values()):
            raise UserError(f"method.inputs.{name}.mix: mixes pictures, not clips")
    for name, term in method.terms.items():
        single = isinstance(term.target, Encoded | Pixels | Hog) and term.target.rows != "pooled"
        if single and counts.get(term.y, 1) > 1 and method.part_of(term).of != term.y:
            raise UserError(f"method.terms.{name}: of a clip, single rows are explained by an input of the same view")


def _joint(teacher: Teacher) -> int:
    return teacher.width("joint") if teacher.has_joint else 0


def patch_of(model: Vit | Swin | ConvNext | ClipImage | Multiway) -> int:
    """Side of a patch in pixels."""
    if isinstance(model, (Swin, ConvNext)):
        return CELL
    if model.patch is not None:
        return model.patch
    return int(model.arch.split("patch")[1].split("_")[0]) if "patch" in model.arch else 16


def _sized(name: str, model: EncoderSpec, grid: int | None) -> EncoderSpec:
    if isinstance(model, ClipText):
        return model
    patch = patch_of(model)
    if model.size is None:
        return dataclasses.replace(model, size=grid * patch if grid is not None else 224)
    if model.size % patch or model.size < patch:
        below = max(model.size // patch * patch, patch)
        raise UserError(
            f"models.{name}.size: {model.size} pixels are not filled by patches of {patch}; "
            f"use {below} or {below + patch}"
        )
    return model


def _as_wide(method: Method, models: dict[str, EncoderSpec], teachers: dict[str, Teacher]) -> dict[str, EncoderSpec]:
    """The text towers whose own rows are guesses of a teacher's."""
    wide: dict[str, EncoderSpec] = {}
    for term in method.terms.values():
        name, target = method.input_of(term).encoder, term.target
        model = models.get(name)
        if not isinstance(model, ClipText) or not isinstance(target, Encoded) or target.encoder not in teachers:
            continue
        if term.predictor.kind == "same":
            wide[name] = dataclasses.replace(model, joint=teachers[target.encoder].width(target.space))
    return wide


def _views(method: Method, models: dict[str, EncoderSpec], teachers: dict[str, Teacher]) -> dict[str, ViewSpec]:
    views = dict(method.views)
    for view, encoder in _seen_by(method):
        model = models.get(encoder)
        if view not in views or not isinstance(model, (Vit, Swin, ConvNext, ClipImage, Multiway)):
            continue
        if views[view].size not in {None, model.size}:
            _check_size(method, view, encoder, model)
            continue
        views[view] = dataclasses.replace(views[view], size=model.size)
    for term in method.terms.values():
        target, view = term.target, views.get(term.y)
        if isinstance(target, Encoded) and view is not None and view.size is None:
            teacher = teachers.get(target.encoder)
            views[term.y] = dataclasses.replace(view, size=224 if teacher is None else teacher.size)
    return views


def _check_size(method: Method, view: str, encoder: str, model: Vit | Swin | ConvNext | ClipImage | Multiway) -> None:
    """Small crops are of a size of their own: views that are seen whole, and of which the pooled row alone is read."""
    size = method.views[view].size
    assert size is not None and model.size is not None
    terms = [term for term in method.terms.values() if view in {term.y, method.part_of(term).of}]
    whole = all(
        method.input_of(term).mix is None
        and (method.part_of(term).of != view or method.part_of(term).hide is None)
        and (isinstance(term.target, Table) or term.target.rows == "pooled")
        for term in terms
    )
    resampled = isinstance(model, Vit) and model.arch.startswith("vit_") and model.positions != "relative"
    if size < model.size and whole and resampled and size % patch_of(model) == 0:
        return
    raise UserError(
        f"method.views.{view}.size: {size} pixels, but '{encoder}' sees images of {model.size}; leave it empty (null), "
        f"or change models.{encoder}.size (a smaller view has to be filled by patches of {patch_of(model)} pixels, "
        "seen whole by a vit_* model with learned or sincos positions, and read by its pooled row alone)"
    )


def _seen_by(method: Method) -> list[tuple[str, str]]:
    """Each view with an encoder that it is made for: the one that sees it, and for a view that is only explained the
    student, whose average or teacher answers for it."""
    seen = [(part.of, asked.encoder) for asked in method.inputs.values() for part in asked.parts.values()]
    return seen + [(term.y, method.input_of(term).encoder) for term in method.terms.values()]
