"""The files of a folder by name. Nothing is asked of a file that its folder does not say by itself, but of a few."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onestage.data.entries import Strings

SIZED = 4096
"""Files whose size goes into a fingerprint; of more, so many that are spread over them."""


class Found(NamedTuple):
    """A file: its path inside the folder, with forward slashes, and its size in bytes."""

    file: str
    size: int


def names_in(folder: Path, inside: str = "") -> Iterator[str]:
    """All files that are not hidden, by their paths inside the folder, with forward slashes, in no order.

    Links to folders are followed, except to one that they lie in.
    """
    deeper: list[Path] = []
    with os.scandir(folder) as listed:
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if (folder / entry.name).is_dir() if entry.is_symlink() else entry.is_dir():
                deeper.append(folder / entry.name)
            else:
                yield inside + entry.name
    for path in deeper:
        if not (path.is_symlink() and folder.resolve().is_relative_to(path.resolve())):
            yield from names_in(path, f"{inside}{path.name}/")


def files_in(folder: Path) -> Iterator[Found]:
    """The same files with their sizes, for which each is asked."""
    return (Found(file, size_of(folder / file)) for file in names_in(folder))


def size_of(path: Path) -> int:
    """Bytes, or -1 for a file that is not there: it will be quarantined when it is wanted."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def some_sizes(root: Path, files: Strings) -> list[int]:
    """Sizes of the files, or of `SIZED` and more that are spread over them."""
    return [size_of(root / files[number]) for number in range(0, len(files), max(len(files) // SIZED, 1))]


def digest_of(files: Strings, sizes: list[int], *told: str) -> str:
    """Hash of all names, of these sizes, and of what else is told."""
    digest = hashlib.sha256(repr(told).encode())
    for file in files:
        digest.update(f"{file}\n".encode("utf-8", "surrogatepass"))
    digest.update(repr(sizes).encode())
    return digest.hexdigest()[:32]


def ending(file: str) -> str:
    """`.jpg`, in lower case, dot included; empty where there is none."""
    _, dot, ending = file.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot else ""
