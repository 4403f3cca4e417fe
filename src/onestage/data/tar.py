"""Where the members of a tar archive lie: POSIX ustar and pax, and GNU long names; nothing is unpacked or followed.

The usual readers take a header that they cannot read for the end of the archive, and lose the rest in silence. Here
the walk goes on at the next valid header, and what lies between is reported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
CHUNK = 1 << 20
MAX_NAME = 1 << 16
"""Bytes of a GNU long name."""
MAX_PAX = 1 << 20
"""Bytes of a pax header."""
_ZEROS = bytes(BLOCK)
_REGULAR = frozenset({b"0", b"\0", b"7"})
_FOLDER = b"5"
_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"


class Member(NamedTuple):
    """A regular file of an archive: where its content lies, in bytes."""

    name: str
    offset: int
    size: int


class Damage(NamedTuple):
    """Bytes of an archive that are not read, and why."""

    offset: int
    size: int
    reason: str


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


class _Given(NamedTuple):
    """What extension headers say of the next member."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


def walk(descriptor: int, length: int) -> Iterator[Member | Damage]:
    """The regular files of an open archive of `length` bytes in their order, and what cannot be read of it.

    Folders are passed over; links, devices and sparse files are reported as damage.
    """
    position, given, ended = 0, _Given(), False
    while position + BLOCK <= length:
        block = os.pread(descriptor, BLOCK, position)
        if block == _ZEROS:
            position, ended = _after_zeros(descriptor, position, length), True
            continue
        header, ended = _parse(block), False
        size = 0 if header is None else header.size if given.size is None else given.size
        start = position + BLOCK
        if header is None or start + size > length:
            resume = _next_header(descriptor, start, length)
            reason = "no valid header" if header is None else f"'{given.name or header.name}' is cut short"
            yield Damage(position, resume - position, reason)
            position, given, ended = resume, _Given(), resume == length
            continue
        position = start + -(-size // BLOCK) * BLOCK
        if header.kind in {_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL}:
            given = _extended(descriptor, header, start, given)
            continue
        yield from _member(header, given, start, size)
        given = _Given()
    if not ended:
        yield Damage(min(position, length), max(length - position, 0), "no end mark: the archive is cut short")


def _member(header: _Header, given: _Given, start: int, size: int) -> Iterator[Member | Damage]:
    name = header.name if given.name is None else given.name
    if header.kind in _REGULAR and not given.sparse and not (header.kind == b"\0" and name.endswith("/")):
        yield Member(name, start, size)
    elif header.kind in _REGULAR or header.kind != _FOLDER:
        if not name.endswith("/"):
            yield Damage(start - BLOCK, BLOCK + size, f"'{name}' is a link, a device or a sparse file")


def _parse(block: bytes) -> _Header | None:
    """A header, or None where its check sum or its numbers are wrong."""
    told = _number(block[148:156])
    if told is None or told != sum(block) - sum(block[148:156]) + 8 * 32:
        return None
    size = _number(block[124:136])
    if size is None:
        return None
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return _Header(f"{prefix}/{name}" if prefix else name, size, block[156:157])


def _number(field: bytes) -> int | None:
    """Octal digits, or GNU's base 256 for large numbers; None for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if digits and all(48 <= digit < 56 for digit in digits) else None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _extended(descriptor: int, header: _Header, start: int, given: _Given) -> _Given:
    """What is known of the next member after one more extension header; too large ones are not read."""
    if header.kind == _GNU_NAME and header.size <= MAX_NAME:
        return given._replace(name=_text(os.pread(descriptor, header.size, start)))
    if header.kind == _PAX and header.size <= MAX_PAX:
        told = _records(os.pread(descriptor, header.size, start))
        size = told.get(b"size", b"")
        return _Given(
            told[b"path"].decode("utf-8", "surrogateescape") if b"path" in told else given.name,
            int(size) if size.isdigit() and len(size) < 20 else given.size,
            given.sparse or any(key.startswith(b"GNU.sparse") for key in told),
        )
    return given


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, `LENGTH KEY=VALUE` and a line's end each; it ends at the first wrong one."""
    records: dict[bytes, bytes] = {}
    while content:
        digits = content.split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = content[len(digits) + 1 : length - 1].partition(b"=")
        if length <= len(digits) + 2 or not equals:
            break
        records[key] = value
        content = content[length:]
    return records


def _after_zeros(descriptor: int, position: int, length: int) -> int:
    """The first block from `position` on that is not empty, or the end."""
    while position < length:
        chunk = os.pread(descriptor, CHUNK, position)
        rest = len(chunk.lstrip(b"\0"))
        if rest or not chunk:
            return position + (len(chunk) - rest) // BLOCK * BLOCK if chunk else length
        position += len(chunk)
    return length


def _next_header(descriptor: int, position: int, length: int) -> int:
    """Where the next valid header stands, or the end."""
    while position < length:
        chunk = os.pread(descriptor, CHUNK, position)
        found = chunk.find(b"ustar")
        while found >= 0:
            at = found - 257
            if at >= 0 and at % BLOCK == 0 and _parse(chunk[at : at + BLOCK]) is not None:
                return position + at
            found = chunk.find(b"ustar", found + 1)
        if len(chunk) < CHUNK:
            break
        position += CHUNK
    return length
