"""What a JPEG's markers say, without decoding it (ITU-T T.81, annex B): its size, and how it is made shorter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Markers before the size: baseline, extended and progressive."""
_PROGRESSIVE, _SCAN = 0xC2, 0xDA
_PASSED = frozenset({*range(0xE0, 0xF0), 0xDB, 0xC4, 0xFE})
"""Markers of application data, tables and comments, which have a length and are passed over."""
_RESTARTS = 0xDD
_END = b"\xff\xd9"
_NEAR = 64
"""Bytes before a file's end in which its end mark is looked for."""
_USUAL = 16
_CUT_OFF = re.compile(r"\d+ extraneous bytes before marker 0xd9")


class Segment(NamedTuple):
    """A marker, where it stands, and the length that it tells of what follows it."""

    marker: int
    start: int
    length: int


class Shortened(NamedTuple):
    """A JPEG that ends above the rest of its rows, and its height."""

    content: bytearray
    height: int


def plain_size(content: bytes, most: int) -> tuple[int, int] | None:
    """(width, height) of a JPEG that has no EXIF block, ten times as fast as Pillow says it. None for all else, and
    for what is oddly small or has more than `most` pixels: Pillow looks at it then."""
    for marker, start, length in _segments(content):
        if marker in _FRAMES:
            height, width = _number(content, start + 5), _number(content, start + 7)
            usual = min(width, height) >= _USUAL and width * height <= most and content[start + 4] == 8
            return (width, height) if usual else None
        told = content[start + 4 : start + 8]
        if (marker not in _PASSED and marker != _RESTARTS) or told in {b"Exif", b"MPF\0"} or length < 2:
            return None
    return None


def shortened(content: bytes, rows: int) -> Shortened | None:
    """A JPEG that says it is but `rows` high, or a little more, so that a decoder stops there.

    None where that would save nothing, or where what follows could not be told from damage: progressive ones, several
    scans, restart marks, and files without an end.
    """
    frame = None
    for segment in _segments(content):
        if segment.marker in _FRAMES and segment.marker != _PROGRESSIVE and frame is None:
            frame = segment.start
        elif segment.marker == _SCAN:
            break
        elif segment.marker not in _PASSED:
            return None
    else:
        return None
    if frame is None or content[segment.start + 4] != content[frame + 9] or content.rfind(_END, -_NEAR) < 0:
        return None
    blocks = 8 * max(content[frame + 11 + 3 * component] & 15 for component in range(content[frame + 9]))
    height = -(-rows // blocks) * blocks if blocks else 0
    if not 0 < height < _number(content, frame + 5):
        return None
    made = bytearray(content)
    made[frame + 5 : frame + 7] = height.to_bytes(2, "big")
    return Shortened(made, height)


def is_cut_off(warning: str) -> bool:
    """Whether libjpeg's first complaint of a shortened JPEG is that more follows: then all before it is sound."""
    return _CUT_OFF.search(warning) is not None


def _segments(content: bytes) -> Iterator[Segment]:
    """Markers from the start on, as far as they can be followed."""
    if not content.startswith(b"\xff\xd8\xff"):
        return
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        length = _number(content, position + 2)
        yield Segment(content[position + 1], position, length)
        position += 2 + length


def _number(content: bytes, position: int) -> int:
    return int.from_bytes(content[position : position + 2], "big")
