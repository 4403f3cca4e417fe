"""From the words of a recipe to what answers for its teachers, and to the geometry of what they see."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from onestage.objective import Ask, Method
from onestage.spec import UserError
from onestage.targets import Table
from onestage.teachers import AnyTeacher
from onestage.teachers.serving.codec import Answered, Codec
from onestage.teachers.serving.key import KEY_BYTES, salt_of, teacher_digest
from onestage.teachers.serving.live import Portions
from onestage.teachers.serving.manifest import SCHEMA, Answer, Manifest, Taught, differences
from onestage.teachers.serving.planning import Fresh, FromStore, Planning, Replayed
from onestage.teachers.serving.ring import Ring
from onestage.teachers.serving.server import LiveServer, ReplayServer, Server, StoreServer
from onestage.teachers.serving.spec import Live, Serving, Stored
from onestage.teachers.serving.store import Store
from onestage.types import Also
from onestage.views import Crop, ViewSpec


class Setting(NamedTuple):
    """What a run asks of its teachers: the questions, the teachers, samples of the data, the run's seed, precision,
    decoder and device, and the views of its method."""

    asks: tuple[Ask, ...]
    teachers: dict[str, AnyTeacher]
    samples: int
    seed: int
    precision: str
    decoder: str
    device: torch.device
    views: dict[str, ViewSpec]

    @property
    def seen(self) -> frozenset[str]:
        """Views that a teacher sees."""
        return frozenset(ask.view for ask in self.asks if ask.view in self.views)

    def answered(self) -> dict[Ask, Answered]:
        """The shape of every answer for a picture."""
        return {
            ask: Answered(self.teachers[ask.encoder].grid, self.teachers[ask.encoder].width(ask.space))
            for ask in self.asks
            if ask.view in self.views
        }


class Served(NamedTuple):
    """Where views come from and who answers for them."""

    planning: Planning
    server: Server


def serve(serving: Serving, setting: Setting, place: Path | None) -> Served:
    """The teachers of a run as its recipe serves them.

    Args:
        place: a folder for what is kept; None keeps nothing, and teachers answer live about the same views.

    Raises:
        UserError: when answers are to be kept and there is no teacher, or it is asked for more than rows.
    """
    portions = Portions(setting.teachers, serving, setting.precision, setting.device)
    live = LiveServer(portions)
    mode = serving.mode
    if isinstance(mode, Live):
        return Served(Fresh(), live)
    if not setting.seen:
        lack = "asks its teacher for words alone; use mode: live" if setting.asks else "has no teacher"
        raise UserError(f"serving.mode: {mode.kind} keeps answers of teachers for pictures, but this method {lack}")
    mixed = sorted(name for name in setting.seen if "blend" in setting.views[name].alters)
    if mixed:
        raise UserError(
            f"serving.mode: {mode.kind} keeps answers for one picture, but views.{mixed[0]} is a blend of two"
        )
    beside = sorted({ask.encoder for ask in setting.asks if ask.also != Also() or ask.space in {"codes", "categories"}})
    if beside:
        raise UserError(
            f"serving.mode: {mode.kind} keeps rows alone, but this method also asks '{beside[0]}' for outputs of its "
            "blocks, its attention, its codes or its categories; use mode: live"
        )
    if isinstance(mode, Stored):
        store = open_store(Path(mode.folder), setting)
        return Served(FromStore(setting.seen, store), StoreServer(portions, store))
    salt = salt_of(identity(setting, mode.codec))
    planning = Replayed(setting.seen, mode.epochs, salt)
    if place is None:
        return Served(planning, live)
    folder = place if mode.folder is None else Path(mode.folder)
    opened = partial(open_ring, folder, mode.gigabytes * 1e9, setting, mode.codec, salt)
    return Served(planning, ReplayServer(portions, setting.answered(), mode.codec, opened))


def identity(setting: Setting, codec: Codec) -> dict[str, object]:
    """What answers depend on besides views."""
    digests = {name: teacher_digest(teacher) for name, teacher in setting.teachers.items()}
    return {"asks": setting.asks, "teachers": digests, "codec": codec, "decoder": setting.decoder}


def manifest_of(setting: Setting, codec: Codec, source: str, fingerprint: str, each: int, count: int) -> Manifest:
    """The manifest of a store of this run's answers.

    Raises:
        UserError: for views whose plans a store has no place for.
    """
    for name in sorted(setting.seen):
        view = setting.views[name]
        if isinstance(view, Crop) and (view.augment is not None or view.erase is not None):
            raise UserError(
                f"views.{name}: a store keeps crops, flips and colours, but this view has augment or erase; serve the "
                "teacher live or by replay"
            )
    answers = tuple(
        Answer(encoder=ask.encoder, view=ask.view, space=ask.space, grid=shape.grid, width=shape.width)
        for ask, shape in setting.answered().items()
    )
    teachers = {
        name: Taught(reference=teacher.reference, digest=teacher_digest(teacher), licence=teacher.licence)
        for name, teacher in setting.teachers.items()
    }
    return Manifest(
        schema=SCHEMA,
        salt=salt_of(identity(setting, codec)).hex(),
        source=source,
        fingerprint=fingerprint,
        samples=setting.samples,
        each=each,
        count=count,
        seed=setting.seed,
        codec=codec,
        decoder=setting.decoder,
        views={name: setting.views[name] for name in sorted(setting.seen)},
        answers=answers,
        teachers=teachers,
    )


def open_store(folder: Path, setting: Setting) -> Store:
    """A store that holds this run's answers.

    Raises:
        UserError: when it is of other teachers, views or questions, with each reason.
    """
    store = Store(folder)
    held = store.manifest
    wanted = manifest_of(setting, held.codec, held.source, held.fingerprint, held.each, held.count)
    reasons = list(differences(held, wanted)) or (["its answers depend on something else"] * (held.salt != wanted.salt))
    if reasons:
        raise UserError(
            f"{folder}: this store is stale or foreign: {'; '.join(reasons)}. Make another with: onestage teach"
        )
    return store


def open_ring(folder: Path, budget: float, setting: Setting, codec: Codec, salt: bytes, ask: Ask, size: int) -> Ring:
    """The ring of a question: its file is named for everything that it depends on, and all files together are inside
    the budget of bytes."""
    whole = sum(shape.size(codec) + KEY_BYTES for shape in setting.answered().values())
    places = min(setting.samples, int(budget // whole))
    if places < 1:
        raise UserError(
            f"serving.mode.gigabytes: {budget / 1e9:g} is less than the answer for one sample ({whole} bytes); "
            f"{setting.samples * whole / 1e9:.3g} hold those of all samples"
        )
    name = salt_of([salt.hex(), setting.seed, setting.samples, ask, size, places]).hex()
    return Ring(folder / f"{name}.ring", size, places)


def check_masks(method: Method, masks: int, piece: int) -> None:
    """Whether each view may stand in a batch so many times.

    Args:
        piece: samples of a batch that one process sees at once.

    Raises:
        UserError: when the samples of a batch are told apart or mixed, or do not make up whole views.
    """
    if masks == 1:
        return
    if piece % masks:
        raise UserError(
            f"serving.masks: {piece} samples of a batch are seen at once, which are no whole views of {masks} masks"
        )
    for name, asked in method.inputs.items():
        if asked.mix is not None:
            raise UserError(
                f"serving.masks: {masks}, but input '{name}' mixes neighbours, which would be the same view"
            )
    for name, term in method.terms.items():
        apart = term.likelihood.kind != "gaussian" or term.regulariser is not None
        if apart and not isinstance(term.target, Table):
            raise UserError(
                f"serving.masks: {masks} samples of a batch would be one view, but term '{name}' tells the samples of "
                "a batch apart; use masks: 1"
            )
