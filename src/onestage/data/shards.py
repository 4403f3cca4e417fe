"""Tar shards in WebDataset's format as a source: random access by the index of each shard, not streaming.

Of a sample's members, the first that is an image is its picture, `txt` its text (or what its `json` lists), `cls` its
class; `shard_members.py` says what is its mask, clip and so on. No other kind is read, so nothing that a shard brings
can run. What cannot be read of a shard is a sample of its own that is always bad: so it ends in the quarantine, like
everything else that is lost.
"""

from __future__ import annotations

import hashlib
import os
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from onestage.data.decode import EXTENSIONS, MAX_BYTES, Stored, Unusable
from onestage.data.keys import USUAL, Keys, no_key
from onestage.data.patterns import files_named
from onestage.data.shard_about import read_about
from onestage.data.shard_fields import MAX_FIELD, label_of, may_tell, parsed, renamed, texts_of, with_fields
from onestage.data.shard_index import Index, read_index
from onestage.data.shard_members import is_picture, is_special, with_members
from onestage.data.shard_scan import checked, in_order, index_shard
from onestage.data.tar import Member
from onestage.roles import BadSample, Picture, Sample, Source
from onestage.spec import UserError

MAX_CLASSES_FILE = 1 << 26
OPEN_FILES = 64
LOOKED = 64
"""Samples whose JSON is looked at for its keys."""
CLASSES = "classes.txt"
"""Beside the shards: names of the classes, one a line, where `cls` members are numbers."""


@final
class Opened:
    """Shards that are open for reading, the ones used last. Every process opens its own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._descriptors: OrderedDict[Path, int] = OrderedDict()

    def read(self, shard: Path, offset: int, size: int) -> bytes:
        """Bytes of a shard.

        Raises:
            BadSample: when they cannot be had.
        """
        try:
            content = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise BadSample(f"{shard.name} cannot be read ({error.strerror})") from None
        if len(content) < size:
            raise BadSample(f"{shard.name} became shorter than its index says")
        return content

    def crc32(self, shard: Path, member: Member) -> int:
        """The check sum of a member, as it lies there now.

        Raises:
            BadSample: when it cannot be read.
        """
        try:
            return checked(self._descriptor(shard), member)[0]
        except OSError as error:
            raise BadSample(f"{shard.name} cannot be read ({error.strerror})") from None

    def _descriptor(self, shard: Path) -> int:
        if self._process != os.getpid():  # a copy in another process, where the numbers may stand for other files
            self._process, self._descriptors = os.getpid(), OrderedDict()
        known = self._descriptors.pop(shard, None)
        self._descriptors[shard] = os.open(shard, os.O_RDONLY | os.O_CLOEXEC) if known is None else known
        if len(self._descriptors) > OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        return self._descriptors[shard]


@final
class InShard(Stored):
    """A picture that is a member of a shard."""

    def __init__(self, opened: Opened, shard: Path, offset: int, size: int) -> None:
        super().__init__()
        self.opened, self.shard, self.offset, self.bytes = opened, shard, offset, size

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            BadSample: when they cannot be had, or are too many.
        """
        if self.bytes > MAX_BYTES:
            raise BadSample(f"{self.bytes} bytes, more than {MAX_BYTES}")
        return self.opened.read(self.shard, self.offset, self.bytes)


class Labels(NamedTuple):
    """Names of the classes, and the number of each class as the shards have it."""

    classes: tuple[str, ...]
    numbers: dict[str, int]


@final
class Shards(Source):
    """The samples of tar shards, in their order. Its memory is a few arrays for each shard."""

    def __init__(
        self, name: str, paths: Sequence[Path], indexes: Sequence[Index], labels: Labels, keys: Keys = USUAL
    ) -> None:
        self.name, self.paths, self.indexes, self.keys = name, tuple(paths), tuple(indexes), keys
        self.has_texts = keys.text is not None or any(index.texts for index in indexes)
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        self._starts = list(accumulate((index.samples + len(index.damage) for index in indexes), initial=0))
        self._opened = Opened()
        self.classes, self._numbers = labels if keys.label is None else self._labelled()
        self.has_labels = bool(self.classes)
        self.about = read_about(self.paths[0].parent)
        for what, told in self.about.items():
            setattr(self, what, told)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        shard, sample = self._place(index)
        own = self.indexes[shard]
        if sample >= own.samples:
            damage = own.damage[sample - own.samples]
            return Sample(key=f"{own.shard}@{damage.offset}", picture=Unusable(damage.reason))
        members = range(int(own.first[sample]), int(own.first[sample + 1]))
        found = {own.kinds[own.kind[member]]: member for member in members}
        told = self._field(shard, found.get("json"))
        given = renamed(parsed(told), self.keys) if told is not None and (any(self.keys) or may_tell(told)) else None
        label = int(own.label[sample])
        named = None if label < 0 else own.classes[label]
        if self.keys.label is not None:
            named = label_of(self._field(shard, found.get(self.keys.label)), given)
        plain = Sample(
            key=f"{own.shard}/{own.stem(sample)}",
            picture=self._picture(shard, found),
            texts=texts_of(self._field(shard, found.get(self.keys.text or "txt")), given) if self.has_texts else (),
            label=None if named is None else self._numbers[named],
        )
        special = {kind: self._stored(shard, member) for kind, member in found.items() if is_special(kind)}
        return with_members(with_fields(plain, given), special, given)

    def sums(self, index: int) -> Iterator[tuple[str, int, int]]:
        """Name, crc32 by the index, and crc32 as it is, of every member of a sample; none where it is damage.

        Raises:
            BadSample: when the shard cannot be read.
        """
        shard, sample = self._place(index)
        own = self.indexes[shard]
        for member in range(int(own.first[sample]), int(own.first[sample + 1])) if sample < own.samples else ():
            name = f"{own.shard}/{own.stem(sample)}.{own.kinds[own.kind[member]]}"
            place = Member(name, int(own.offset[member]), int(own.size[member]))
            yield name, int(own.crc32[member]), self._opened.crc32(self.paths[shard], place)

    def fingerprint(self) -> str:
        """Hash of every member's name, size and check sum, whatever the time and place of the shards."""
        digest = hashlib.sha256()
        for index in self.indexes:
            digest.update(f"{index.shard}\0{index.bytes}\0{index.kinds}\n".encode("utf-8", "surrogatepass"))
            digest.update(repr(self.keys).encode() if any(self.keys) else b"")
            for column in (index.stems, index.ends, index.first, index.kind, index.offset, index.size, index.crc32):
                digest.update(np.ascontiguousarray(column).tobytes())
        digest.update(repr(self.about).encode() if self.about else b"")
        return digest.hexdigest()[:32]

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _picture(self, shard: int, found: dict[str, int]) -> Picture:
        for kind, member in found.items():
            if kind == self.keys.image or (self.keys.image is None and is_picture(kind)):
                return self._stored(shard, member)
        return Unusable(f"it has no picture (its members: {', '.join(found)})")

    def _stored(self, shard: int, member: int) -> InShard:
        index = self.indexes[shard]
        return InShard(self._opened, self.paths[shard], int(index.offset[member]), int(index.size[member]))

    def _members(self, index: int) -> tuple[int, dict[str, int]]:
        """The shard of a sample, and its members by kind; none where it is damage."""
        shard, sample = self._place(index)
        own = self.indexes[shard]
        members = range(int(own.first[sample]), int(own.first[sample + 1])) if sample < own.samples else ()
        return shard, {own.kinds[own.kind[member]]: member for member in members}

    def _labelled(self) -> Labels:
        """The classes under the key that a user said, for which all samples are asked once."""
        member = self.keys.label or ""
        told = (
            label_of(content, renamed(given, self.keys)) for content, given in self._contents(range(len(self)), member)
        )
        classes = in_order({label for label in told if label is not None})
        return Labels(classes, {name: number for number, name in enumerate(classes)})

    def keys_there(self) -> set[str]:
        """Kinds of members, and keys of the JSON of some samples."""
        there = {kind for index in self.indexes for kind in index.kinds}
        some = range(0, len(self), max(len(self) // LOOKED, 1))
        return there.union(*(given for _, given in self._contents(some, "") if isinstance(given, dict)))

    def _contents(self, indexes: range, kind: str) -> Iterator[tuple[bytes | None, Any]]:
        """A member of each sample, and its JSON; what cannot be read is passed over, as it will be bad later too."""
        for index in indexes:
            shard, found = self._members(index)
            with suppress(BadSample):
                yield self._field(shard, found.get(kind)), parsed(self._field(shard, found.get("json")))

    def _field(self, shard: int, member: int | None) -> bytes | None:
        index = self.indexes[shard]
        if member is None or index.size[member] > MAX_FIELD:
            return None
        return self._opened.read(self.paths[shard], int(index.offset[member]), int(index.size[member]))


def is_shards(text: str) -> bool:
    """Whether what a user typed names tar shards."""
    return text.endswith(".tar")


def open_shards(text: str, keys: Keys = USUAL) -> Shards:
    """Shards by a file's name, a pattern with * or ?, or ranges such as {000..127}; missing indexes are made.

    Raises:
        UserError: when no shard is found, one of a range is missing, there is no picture in them, or no such key.
    """
    paths = files_named(text, "shard")
    indexes = indexes_of(paths)
    source = Shards(text, paths, indexes, _labels(paths, indexes), keys)
    there = source.keys_there() if any(keys) else set()
    for what, asked in keys._asdict().items():
        if asked is not None and asked not in there:
            raise no_key(text, what, asked, there)
    kinds = sorted({kind for index in indexes for kind in index.kinds})
    if not any(f".{kind.rpartition('.')[2]}" in EXTENSIONS for kind in kinds):
        found = f"members end in {', '.join(kinds[:12])}" if kinds else "there are no members"
        raise UserError(f"{text}: no pictures in {len(paths)} shards: {found}; pictures end in {_endings()}")
    return source


def indexes_of(paths: Sequence[Path]) -> list[Index]:
    """The index of every shard; those that are missing or stale are made, several at once, and it is said."""
    ready = [read_index(path) for path in paths]
    missing = [path for path, index in zip(paths, ready, strict=True) if index is None]
    if not missing:
        return [index for index in ready if index is not None]
    print(f"{len(missing)} of {len(paths)} shards have no index yet: reading them once", file=sys.stderr)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        made = dict(zip(missing, pool.map(index_shard, missing), strict=True))
    return [made[path] if index is None else index for path, index in zip(paths, ready, strict=True)]


def _labels(paths: Sequence[Path], indexes: Sequence[Index]) -> Labels:
    """The classes of all shards; by name from `classes.txt` where they are numbers and it is there."""
    classes = in_order({label for index in indexes for label in index.classes})
    numbers = {label: number for number, label in enumerate(classes)}
    named = paths[0].parent / CLASSES
    if not classes or not named.is_file():
        return Labels(classes, numbers)
    if named.stat().st_size > MAX_CLASSES_FILE:
        raise UserError(f"{named}: {named.stat().st_size} bytes, more than {MAX_CLASSES_FILE}")
    names = tuple(named.read_text(encoding="utf-8").split("\n")[:-1])
    if not all(label.isdigit() for label in classes) or len(names) < len(classes):
        raise UserError(f"{named}: names {len(names)} classes, but the shards have {len(classes)} ({classes[-1]} last)")
    return Labels(names, numbers)


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))
