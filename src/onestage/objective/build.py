"""Building the modules of a method: encoders, their averages, and targets; and what must fit between them."""

from __future__ import annotations

from typing import NamedTuple

from onestage.encoders import EncoderSpec, Second
from onestage.encoders.vit import VitEncoder
from onestage.objective.declare import Ema, Method, Term, Trained
from onestage.objective.drawn import Look
from onestage.objective.projectors import target_projector
from onestage.predictors import Aligned
from onestage.roles import Encoder, TargetMaker
from onestage.spec import UserError
from onestage.targets import Encoded, OfPixels, Spelled, Table
from onestage.types import Grid


class Answers(NamedTuple):
    """What the objective must know of a frozen teacher to be built: its grid, its widths in both spaces, and how many
    codes and categories it has."""

    grid: Grid
    joint: int
    raw: int
    codes: int = 0
    categories: int = 0
    look: Look | None = None
    """Its tokens of images with gradients for them; None where it gives none."""


def build_encoder(method: Method, name: str, models: dict[str, EncoderSpec]) -> Encoder:
    """The trained encoder `name`, with room for mask tokens where an input of it asks for them.

    Raises:
        UserError: when the recipe has no model of that name, or it lacks a second class token that is read.
    """
    if name not in models:
        raise UserError(f"models.{name}: method {method.name} trains an encoder '{name}', but the recipe has no model")
    modes = frozenset(
        part.mode for asked in method.inputs.values() if asked.encoder == name for part in asked.parts.values()
    )
    made = models[name].build(modes)
    two = isinstance(made, VitEncoder) and made.class_tokens == 2
    if not two and name in {method.input_of(term).encoder for term in _of_second(method)}:
        raise UserError(f"models.{name}.class_tokens: method {method.name} reads a second class token; set it to 2")
    return made


def _of_second(method: Method) -> list[Term]:
    """The terms that read a second class token."""
    return [
        term
        for term in method.terms.values()
        if term.projector is not None and isinstance(method.projectors[term.projector], Second)
    ]


def average_of(method: Method, name: str, models: dict[str, EncoderSpec], built: dict[str, Encoder]) -> Encoder:
    """The average `name` of a built encoder: equal to it at first, without gradients."""
    role = method.encoders[name]
    assert isinstance(role, Ema)
    slow = build_encoder(method, role.of, models)
    slow.load_state_dict(built[role.of].state_dict())
    return slow.requires_grad_(False).eval()


def build_target(
    method: Method,
    term: Term,
    width: int,
    built: dict[str, Encoder],
    teachers: dict[str, Answers],
    classes: int | None,
) -> TargetMaker:
    """What makes a term's target rows, as wide as what it explains.

    Args:
        width: of the rows that the term's predictor reads.

    Raises:
        UserError: when a table is wanted and nobody knows the number of classes.
    """
    target = term.target
    student = built[method.input_of(term).encoder]
    if isinstance(target, OfPixels):
        return target.build(student.size // student.grid[1], student.tubelet)
    if isinstance(target, Spelled):
        return target.build()
    if isinstance(target, Table):
        if classes is None and target.classes is None:
            raise UserError("target table: the number of classes is unknown; the data has no labels")
        return target.build(width, target.classes or classes or 0)
    if target.encoder in built:
        return target.build(width if target_projector(method, term) else built[target.encoder].width)
    answer = teachers[target.encoder]
    widths = {"joint": answer.joint, "raw": answer.raw, "codes": answer.codes, "categories": answer.categories}
    return target.build(widths[target.space])


def target_grid(
    method: Method, name: str, student: Encoder, built: dict[str, Encoder], teachers: dict[str, Answers]
) -> Grid:
    """The target's grid, which must be the student's where single rows are explained by rows."""
    term = method.terms[name]
    if not isinstance(term.target, Encoded) or term.target.rows == "pooled" or term.target.fit == "resample":
        return student.grid
    if method.words_by_words(term):
        return student.grid  # both read the same words
    encoder = term.target.encoder
    grid = built[encoder].grid if encoder in built else teachers[encoder].grid
    if grid != student.grid:
        patch = student.size // student.grid[1]
        raise UserError(
            f"terms.{name}: the student's grid is {student.grid[0]}x{student.grid[1]} but the grid of '{encoder}' is "
            f"{grid[0]}x{grid[1]}. With patches of {patch} pixels the student needs size {grid[0] * patch}."
        )
    return grid


def leave_unread_norms(method: Method, built: dict[str, Encoder]) -> None:
    """A final norm behind which no term reads, as in MaskAlign, stays as it was drawn."""
    for name in method.named(Trained):
        read = [term for term in method.terms.values() if method.input_of(term).encoder == name]
        norm = built[name].last_norm()
        if read and norm is not None and all(isinstance(term.predictor, Aligned) for term in read):
            norm.requires_grad_(False)
