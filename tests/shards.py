"""Tar shards for the tests: pictures of one level each, in any format of tar."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(level: int, side: int = 6) -> bytes:
    """A picture of one grey level."""
    coded = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level % 256, np.uint8)).save(coded, "PNG")
    return coded.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file of members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def captioned(start: int, count: int, kind: str = "png") -> list[tuple[str, bytes]]:
    """Members of `count` samples: a picture and a text each."""
    return [
        member
        for number in range(start, start + count)
        for member in ((f"{number:06}.{kind}", png(number)), (f"{number:06}.txt", f"picture {number}".encode()))
    ]


def offsets(path: Path) -> dict[str, int]:
    """Where the header of every member stands, as the standard library reads it."""
    with tarfile.open(path) as tar:
        return {member.name: member.offset for member in tar.getmembers()}
