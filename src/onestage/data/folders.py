"""Folders of images: class folders, captioned folders (the hubs' image-folder convention), and plain ones.

A folder with `metadata.jsonl` or `metadata.csv` is what that file says of it (`described.py`). Otherwise its
sub-folders are classes, whatever lies deeper inside them; images that lie beside one another have no label.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

from onestage.data.decode import EXTENSIONS, File
from onestage.data.described import METADATA, Entry, read_metadata
from onestage.roles import Sample, Source
from onestage.spec import UserError

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
"""Sub-folders that are parts of a data set, not classes."""


class Found(NamedTuple):
    """A file: its path inside the folder, with forward slashes, and its size in bytes."""

    file: str
    size: int


@final
class Folder(Source):
    """Images of a folder, with what the folder says of them."""

    def __init__(self, root: Path, entries: Sequence[Entry], classes: tuple[str, ...], fingerprint: str) -> None:
        self.root, self.entries, self.classes = root, entries, classes
        self.name = str(root)
        self._number = {label: number for number, label in enumerate(classes)}
        self.has_texts = any(entry.texts for entry in entries)
        self.has_labels = bool(classes)
        # Few captions name colours or say what stands at a picture's edge; many say left and right.
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        label = None if entry.label is None else self._number[entry.label]
        return Sample(key=entry.file, picture=File(self.root / entry.file), texts=entry.texts, label=label)

    def fingerprint(self) -> str:
        """Hash of the files' names and sizes, and of the metadata file."""
        return self._fingerprint


def open_folder(root: Path) -> Folder:
    """A folder as a source.

    Raises:
        UserError: when it is missing, not a folder, cannot be read, or holds no images.
    """
    if not root.exists():
        raise UserError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: a file, not a folder of images")
    try:
        return _described(root) or _undescribed(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error})") from None


def _described(root: Path) -> Folder | None:
    """The folder as its metadata file describes it; None where it has none."""
    metadata = next((root / name for name in METADATA if (root / name).is_file()), None)
    if metadata is None:
        return None
    entries = read_metadata(metadata)
    sizes = [_size(root / entry.file) for entry in entries]
    if max(sizes) < 0:
        raise UserError(
            f"{metadata}: none of the {len(entries)} files that it names is in {root} (the first is "
            f"'{entries[0].file}'); file_name is relative to the folder"
        )
    with metadata.open("rb") as file:
        described = hashlib.file_digest(file, "sha256").hexdigest()
    names = {entry.label for entry in entries if entry.label is not None}
    return Folder(root, entries, _in_order(names), _fingerprint(entries, sizes, described))


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Classes by name; by number where all are numbers, so that 10 comes after 9."""
    found = list(names)
    numbers = all(name.isascii() and name.isdigit() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name), name) if numbers else (0, name)))


def _undescribed(root: Path) -> Folder:
    files = list(files_in(root))
    images = sorted(found for found in files if ending(found.file) in EXTENSIONS)
    if not images:
        raise UserError(_no_images(root, files))
    nested = all("/" in found.file for found in images)
    entries = [Entry(found.file, label=found.file.split("/", 1)[0] if nested else None) for found in images]
    classes = tuple(sorted({entry.label for entry in entries if entry.label is not None}))
    if classes and SPLITS.issuperset(name.lower() for name in classes):
        raise UserError(
            f"{root}: its sub-folders ({', '.join(classes)}) are splits, not classes; "
            f"name one of them, such as {root / classes[0]}"
        )
    return Folder(root, entries, classes, _fingerprint(entries, [found.size for found in images], ""))


def files_in(folder: Path, inside: str = "") -> Iterator[Found]:
    """All files that are not hidden. Links to folders are followed, except to one that they lie in."""
    with os.scandir(folder) as listed:
        entries = [entry for entry in listed if not entry.name.startswith(".")]
    for entry in entries:
        path = folder / entry.name if entry.is_symlink() or entry.is_dir() else None
        if path is None:
            yield Found(inside + entry.name, entry.stat().st_size)
        elif not path.is_dir():
            yield Found(inside + entry.name, _size(path))
        elif not (path.is_symlink() and folder.resolve().is_relative_to(path.resolve())):
            yield from files_in(path, f"{inside}{entry.name}/")


def _size(path: Path) -> int:
    """Bytes, or -1 for a file that is not there: it will be quarantined when it is wanted."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def ending(file: str) -> str:
    """`.jpg`, in lower case, dot included; empty where there is none."""
    _, dot, ending = file.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot else ""


def _no_images(root: Path, files: list[Found]) -> str:
    if not files:
        return f"{root}: the folder is empty"
    kinds = Counter(ending(found.file) or "(none)" for found in files).most_common(4)
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds)
    return f"{root}: no images among its {len(files)} files ({seen}); images end in {' '.join(sorted(EXTENSIONS))}"


def _fingerprint(entries: Sequence[Entry], sizes: Sequence[int], described: str) -> str:
    digest = hashlib.sha256(described.encode())
    for entry, size in zip(entries, sizes, strict=True):
        digest.update(f"{entry.file}\0{size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
