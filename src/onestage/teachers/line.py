"""The line between the weights of two models of one architecture.

WiSE-FT (arXiv:2109.01903, section 3): theta = (1 - alpha) theta_A + alpha theta_B for every tensor, where A is a model
before fine-tuning and B after. A temperature is averaged as it is trained, as a logarithm.
"""

from __future__ import annotations

import filecmp
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from onestage.encoders import ClipText
from onestage.spec import UserError, to_plain
from onestage.teachers.bundle import BundleSpec, LibraryImage, read_names
from onestage.teachers.category import CategorySide, Through
from onestage.teachers.stored import Stored, image_weights, text_weights, under
from onestage.teachers.text import FOLDER

IMAGE, TEXT, JOINT, CATEGORY, TAUGHT = "student", "text", "joint", "category", "taught"
"""What encoders, heads and terms are called on the line, whatever the two models call them."""
SCALE = f"likelihoods.{JOINT}.log_scale"
MASK = f"encoders.{IMAGE}.mask.token"
"""What training alone needs, and so one model may have and the other lack."""
TRAINING = frozenset({"drop_path", "attention_dropout", "init", "init_std", "stem_gradient"})
"""Settings of an encoder that say nothing of a trained one."""
HEADS = {
    IMAGE: (f"encoders.{IMAGE}.",),
    "text tower": (f"encoders.{TEXT}.", SCALE),
    "joint head": (f"predictors.{JOINT}.", f"projectors.trained.{JOINT}."),
    "category head": tuple(
        f"{place}.{name}."
        for name in (CATEGORY, TAUGHT)
        for place in ("predictors", "projectors.trained", "targets", "likelihoods")
    ),
}
"""The parts of a model by the names of their weights."""


class Line(NamedTuple):
    """Two models under the same names: how both are built, where their files stand, their weights, and what to tell
    of parts that only one of them has."""

    bundle: BundleSpec
    folder: Path
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    notes: tuple[str, ...]

    def at(self, alpha: float) -> Stored:
        """The model at (1 - alpha) A + alpha B, with alpha in [0, 1]; a part that A lacks is B's."""
        weights = {key: _between(self.first.get(key, last), last, alpha) for key, last in self.second.items()}
        return Stored(self.folder, self.bundle, weights)


def line_between(first: tuple[str, Stored, str], second: tuple[str, Stored, str]) -> Line:
    """The line from one model to another; each is its reference, what is stored, and `student` or `ema`.

    Raises:
        UserError: when they are not of one architecture.
    """
    (name, a, which_a), (other, b, which_b) = first, second
    said = f"{name} and {other} cannot be averaged"
    _same_encoder(a.bundle, b.bundle, said)
    _same_files(a, b, said)
    weights = _renamed(a, which_a), _renamed(b, which_b)
    notes = []
    for part, prefixes in HEADS.items():
        one, two = ({key: value for key, value in given.items() if key.startswith(prefixes)} for given in weights)
        if one and two:
            _same_shapes(part, one, two, said)
        elif one or two:
            notes.append(f"{part}: only {name if one else other} has one; {'left out' if one else 'taken as it is'}")
    return Line(_bundle(b.bundle), b.folder, *weights, tuple(notes))


def _between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Exact at both ends; counters are B's."""
    if not second.is_floating_point():
        return second
    return torch.lerp(first.float(), second.float(), alpha).to(second.dtype)


def _renamed(stored: Stored, which: str) -> dict[str, Tensor]:
    """The weights that the model needs, under the names of the line."""
    bundle, given = stored.bundle, stored.weights
    found = {IMAGE: image_weights(stored, which), TEXT: text_weights(stored)}
    weights = {f"encoders.{name}.{key}": value for name, part in found.items() for key, value in part.items()}
    places = _places(JOINT, bundle.head_of, bundle.through, ("predictors",))
    if bundle.category is not None:
        tabled = ("predictors", "targets", "likelihoods")
        places |= _places(CATEGORY, bundle.category.term, bundle.category.through, tabled)
        if (taught := bundle.category.taught) is not None:
            places |= _places(TAUGHT, taught.term, taught.through, ("predictors",))
    weights |= {to + key: value for at, to in places.items() for key, value in under(given, at).items()}
    if bundle.text is not None:
        weights[SCALE] = _log_scale(stored)
    return weights


def _places(name: str, term: str | None, through: Through | None, rooms: tuple[str, ...]) -> dict[str, str]:
    """Where the weights of a head stand in a run, and where on the line."""
    found = {} if term is None else {f"{room}.{term}.": f"{room}.{name}." for room in rooms}
    return found | ({} if through is None else {f"projectors.trained.{through.name}.": f"projectors.trained.{name}."})


def _log_scale(stored: Stored) -> Tensor:
    """The logarithm of the scale of the logits, learned or fixed."""
    side = stored.bundle.text
    assert side is not None, "asked for models that read texts"
    if side.scale_of is not None:
        return stored.weights[f"likelihoods.{side.scale_of}.log_scale"].reshape(1)
    return torch.tensor([math.log(side.scale)])


def _bundle(own: BundleSpec) -> BundleSpec:
    """How B is built, under the names of the line."""
    side, category = own.text, own.category
    if side is not None:
        trained = TEXT if isinstance(side.encoder, ClipText) else None
        side = replace(side, trained_as=trained, scale_of=JOINT)
    if category is not None:
        category = _category(category)
    return replace(
        own,
        name=IMAGE,
        average=None,
        head_of=JOINT if own.head_of is not None else None,
        through=_through(JOINT, own.through),
        text=side,
        category=category,
        book=None,
    )


def _through(name: str, own: Through | None) -> Through | None:
    return None if own is None else replace(own, name=name)


def _same_encoder(a: BundleSpec, b: BundleSpec, said: str) -> None:
    """Raise UserError unless images are read by one architecture, and texts too, and heads are built alike."""
    for given in (a.encoder, b.encoder):
        if isinstance(given, LibraryImage):
            raise UserError(f"{said}: images are read by {given.reference}, which a run does not hold")
    one, two = to_plain(a.encoder), to_plain(b.encoder)
    given = {key for key in one if two.get(key) is not None and one[key] is not None} | {"kind"}
    differing = [f"{key} {one[key]} and {two[key]}" for key in one if key in given - TRAINING and one[key] != two[key]]
    if differing:
        raise UserError(f"{said}: their image encoders differ ({', '.join(differing)}). Give two of one architecture.")
    if a.text and b.text and a.text.encoder != b.text.encoder:
        raise UserError(f"{said}: their text towers are of two architectures ({a.text.encoder}; {b.text.encoder})")
    if (
        a.head
        and b.head
        and (a.head, a.joint, _through(JOINT, a.through)) != (b.head, b.joint, _through(JOINT, b.through))
    ):
        raise UserError(f"{said}: their heads of the joint space differ ({a.head}, {a.joint}; {b.head}, {b.joint})")
    if a.category and b.category and _category(a.category) != _category(b.category):
        raise UserError(f"{said}: their category heads are built in two ways")


def _category(side: CategorySide) -> CategorySide:
    taught = side.taught
    if taught is not None:
        taught = replace(taught, term=TAUGHT, through=_through(TAUGHT, taught.through))
    return replace(side, term=CATEGORY, through=_through(CATEGORY, side.through), taught=taught)


def _same_files(a: Stored, b: Stored, said: str) -> None:
    """Raise UserError where both have what cannot be averaged, and it is not the same."""
    if a.bundle.category and b.bundle.category and read_names(a.folder) != read_names(b.folder):
        raise UserError(f"{said}: their categories have other names or another order")
    side = b.bundle.text
    if side is None or a.bundle.text is None or isinstance(side.encoder, ClipText):
        return
    one, two = (stored.folder / "bundle" / FOLDER for stored in (a, b))
    names = [{path.relative_to(at) for path in at.rglob("*") if path.is_file()} for at in (one, two)]
    if names[0] != names[1] or filecmp.cmpfiles(one, two, names[0], shallow=False)[0] != list(names[0]):
        raise UserError(f"{said}: their text towers are kept in {side.encoder.library}'s own files, which differ")


def _same_shapes(part: str, a: dict[str, Tensor], b: dict[str, Tensor], said: str) -> None:
    """Raise UserError unless a part has the same tensors in both."""
    lacking = sorted((set(a) ^ set(b)) - {MASK})
    if lacking:
        raise UserError(f"{said}: of the {part}, only one has {', '.join(lacking[:3])}")
    for key in sorted(a.keys() & b.keys()):
        if a[key].shape != b[key].shape:
            raise UserError(f"{said}: {key} has the shapes {tuple(a[key].shape)} and {tuple(b[key].shape)}")
