"""Making the index of a tar shard: one pass over its bytes, grouped into samples as WebDataset groups them.

Members that follow one another and share all of their name up to the first dot of its last part are one sample; the
rest of the name, in lower case, is the member's kind (`000012.jpg`, `000012.txt`).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import final

import numpy as np

from onestage.data.shard_fields import label_of, parsed, texts_of
from onestage.data.shard_index import Index, pack_stems, state_of, write_index
from onestage.data.tar import CHUNK, Damage, Member, walk
from onestage.spec import UserError

MAX_KINDS = 1 << 16


def index_shard(shard: Path) -> Index:
    """Make the index of a shard, and write it.

    Raises:
        UserError: when the shard cannot be read, or the index cannot be written.
    """
    size, time = state_of(shard)
    groups = _Groups()
    try:
        descriptor = os.open(shard, os.O_RDONLY)
        try:
            for found in walk(descriptor, size):
                if isinstance(found, Damage):
                    groups.damage.append(found)
                else:
                    groups.add(found, *checked(descriptor, found))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{shard}: cannot be read ({error.strerror})") from None
    index = groups.index(shard.name, size, time)
    write_index(shard, index)
    return index


def key_and_kind(name: str) -> tuple[str, str]:
    """A member's name as its sample's name and the member's kind; the kind is empty where it has none."""
    folder, slash, last = name.rpartition("/")
    stem, _, kind = last.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def checked(descriptor: int, member: Member) -> tuple[int, bytes]:
    """crc32 of a member, and its content where it is short.

    Raises:
        OSError: when the file ends before it.
    """
    crc, done, head = 0, 0, b""
    while done < member.size:
        chunk = os.pread(descriptor, min(CHUNK, member.size - done), member.offset + done)
        if not chunk:
            raise OSError(5, "the file became shorter while it was read")
        crc, done = zlib.crc32(chunk, crc), done + len(chunk)
        head = chunk if done == len(chunk) == member.size else b""
    return crc, head


@final
class _Groups:
    """Members, gathered into samples."""

    def __init__(self) -> None:
        self.damage: list[Damage] = []
        self._kinds: dict[str, int] = {}
        self._rows: list[tuple[int, int, int, int]] = []
        self._first: list[int] = []
        self._stems: list[str] = []
        self._labels: list[str | None] = []
        self._fields: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._texts = 0

    def add(self, member: Member, crc: int, content: bytes) -> None:
        key, kind = key_and_kind(member.name)
        if key.rpartition("/")[2] == "" or kind == "":
            return  # hidden files, and files that are of no kind
        if "\n" in key or len(self._kinds) >= MAX_KINDS:
            self.damage.append(Damage(member.offset, member.size, f"{key!r} is no name of a sample"))
            return
        if not self._stems or self._stems[-1] != key or kind in self._seen:
            self._close()
            self._stems.append(key)
            self._first.append(len(self._rows))
        self._seen.add(kind)
        if kind in {"txt", "json", "cls"}:
            self._fields[kind] = content
        number = self._kinds.setdefault(kind, len(self._kinds))
        self._rows.append((number, member.offset, member.size, crc))

    def index(self, shard: str, size: int, time: int) -> Index:
        """What was gathered."""
        self._close()
        classes = in_order({label for label in self._labels if label is not None})
        numbers = {label: number for number, label in enumerate(classes)}
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 4)
        return Index(
            shard,
            size,
            time,
            tuple(self._kinds),
            self._texts,
            classes,
            tuple(self.damage),
            *pack_stems(self._stems),
            np.array([*self._first, len(rows)], dtype=np.int64),
            rows[:, 0].astype(np.uint16),
            rows[:, 1].copy(),
            rows[:, 2].copy(),
            rows[:, 3].astype(np.uint32),
            np.array([-1 if one is None else numbers[one] for one in self._labels], dtype=np.int32),
        )

    def _close(self) -> None:
        """End the sample that is being gathered: note its label, and whether it has a text."""
        if len(self._labels) < len(self._stems):
            given = parsed(self._fields.get("json"))
            self._labels.append(label_of(self._fields.get("cls"), given))
            self._texts += bool(texts_of(self._fields.get("txt"), given))
        self._seen, self._fields = set(), {}


def in_order(names: set[str]) -> tuple[str, ...]:
    """Classes by name; where all are numbers, every number from 0 to the greatest, so that a number is its own label.

    Numbers beyond a million are names.
    """
    if names and all(name.isascii() and name.isdigit() and str(int(name)) == name for name in names):
        greatest = max(map(int, names))
        if greatest < 1_000_000:
            return tuple(map(str, range(greatest + 1)))
    return tuple(sorted(names))
