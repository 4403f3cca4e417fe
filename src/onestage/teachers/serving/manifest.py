"""What a store of answers says of itself, and why another run may not use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, final

from pydantic import Field

from onestage.objective import Ask
from onestage.roles import Space
from onestage.spec import UserError, from_plain, read_yaml, spec
from onestage.teachers.serving.codec import Answered, Codec
from onestage.views import ViewSpec

SCHEMA = 1
FILE = "store.yaml"
Positive = Annotated[int, Field(ge=1)]


@final
@spec
class Answer:
    """One question to a teacher, and the shape of its answers."""

    encoder: str
    view: str
    space: Space
    grid: tuple[int, int]
    width: Positive

    @property
    def ask(self) -> Ask:
        """The question."""
        return Ask(self.encoder, self.view, self.space)

    @property
    def shape(self) -> Answered:
        """Of its answers."""
        return Answered(self.grid, self.width)


@final
@spec
class Taught:
    """A teacher whose answers are in the store."""

    reference: str
    digest: str
    licence: str


@final
@spec
class Manifest:
    """What a store holds: `store.yaml`, written before its first shard."""

    schema: int
    salt: str
    """Digest of everything that answers depend on besides views."""
    source: str
    fingerprint: str
    samples: Positive
    each: Positive
    """Samples of a shard."""
    count: Positive
    """Views of a picture."""
    seed: int
    codec: Codec
    decoder: str
    views: dict[str, ViewSpec]
    answers: tuple[Answer, ...]
    teachers: dict[str, Taught]

    @property
    def shards(self) -> int:
        """How many there are when it is finished."""
        return -(-self.samples // self.each)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        UserError: when the folder is no store, or one of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: not a store of answers (it holds no {FILE}); make one with: onestage teach")
    found = from_plain(Manifest, read_yaml(path), str(path))
    if found.schema != SCHEMA:
        raise UserError(f"{folder}: a store of schema {found.schema}, and this version reads {SCHEMA}; make it anew")
    return found


def differences(held: Manifest, wanted: Manifest) -> Iterator[str]:
    """Why answers of one manifest are not those of another: each reason in words."""
    if [one.ask for one in held.answers] != [one.ask for one in wanted.answers]:
        yield f"it answers {_asked(held)}, and {_asked(wanted)} is asked"
    for name, teacher in wanted.teachers.items():
        other = held.teachers.get(name)
        if other is not None and other.digest != teacher.digest:
            yield f"its teacher was {_named(other)}, not {_named(teacher)}"
    for name, view in wanted.views.items():
        other = held.views.get(name)
        if other is not None and other != view:
            yield f"its views '{name}' are {other}, not {view}"
    if held.decoder != wanted.decoder:
        yield f"its pictures were decoded by {held.decoder}, not {wanted.decoder} (decoder: {held.decoder})"


def _named(teacher: Taught) -> str:
    return f"{teacher.reference} ({teacher.digest[:8]})"


def _asked(manifest: Manifest) -> str:
    return ", ".join(f"{one.encoder} about {one.view} ({one.space})" for one in manifest.answers) or "nothing"
