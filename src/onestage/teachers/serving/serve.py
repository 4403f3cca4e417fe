"""From the words of a recipe to what answers for its teachers, and to the geometry of what they see."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from onestage.objective import Ask, Method
from onestage.spec import UserError
from onestage.targets import Table
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.run import RunTeacher
from onestage.teachers.serving.codec import Codec
from onestage.teachers.serving.key import KEY_BYTES, salt_of, teacher_digest
from onestage.teachers.serving.live import Portions
from onestage.teachers.serving.planning import Fresh, Planning, Replayed
from onestage.teachers.serving.ring import Ring
from onestage.teachers.serving.server import Answered, LiveServer, ReplayServer, Server
from onestage.teachers.serving.spec import Live, Replay, Serving


class Setting(NamedTuple):
    """What a run asks of its teachers: the questions, the teachers, samples of the data, the run's seed, precision and
    decoder, and its device."""

    asks: tuple[Ask, ...]
    teachers: dict[str, RunTeacher | LibraryTeacher]
    samples: int
    seed: int
    precision: str
    decoder: str
    device: torch.device

    @property
    def views(self) -> frozenset[str]:
        """Views that a teacher sees."""
        return frozenset(ask.view for ask in self.asks if ask.view != "text")

    def answered(self) -> dict[Ask, Answered]:
        """The shape of every answer."""
        return {
            ask: Answered(self.teachers[ask.encoder].grid, self.teachers[ask.encoder].width(ask.space))
            for ask in self.asks
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
        UserError: when answers are to be kept and there is no teacher.
    """
    portions = Portions(setting.teachers, serving, setting.precision, setting.device)
    live = LiveServer(portions)
    mode = serving.mode
    if isinstance(mode, Live):
        return Served(Fresh(), live)
    if not setting.asks:
        raise UserError(f"serving.mode: {mode.kind} keeps answers of teachers, but this method has no teacher")
    assert isinstance(mode, Replay)
    salt = salt_of(identity(setting, mode.codec))
    planning = Replayed(setting.views, mode.epochs, salt)
    if place is None:
        return Served(planning, live)
    folder = place if mode.folder is None else Path(mode.folder)
    opened = partial(open_ring, folder, mode.gigabytes * 1e9, setting, mode.codec, salt)
    return Served(planning, ReplayServer(portions, setting.answered(), mode.codec, opened))


def identity(setting: Setting, codec: Codec) -> dict[str, object]:
    """What answers depend on besides views."""
    digests = {name: teacher_digest(teacher) for name, teacher in setting.teachers.items()}
    return {"asks": setting.asks, "teachers": digests, "codec": codec, "decoder": setting.decoder}


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
