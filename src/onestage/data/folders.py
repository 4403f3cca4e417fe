"""Folders of images: class folders, captioned folders (the hubs' image-folder convention), and plain ones.

A folder with `metadata.jsonl`, `.csv` or `.parquet` is what that file says of it (`described.py`). Otherwise its
sub-folders are classes, whatever lies deeper inside them; images that lie beside one another have no label.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import final

from onestage.data.decode import EXTENSIONS, File
from onestage.data.described import METADATA, read_metadata
from onestage.data.entries import Entries, Entry
from onestage.data.keys import USUAL, Keys
from onestage.data.listing import digest_of, ending, names_in, some_sizes
from onestage.roles import Sample, Source
from onestage.spec import UserError

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
"""Sub-folders that are parts of a data set, not classes."""


@final
class Folder(Source):
    """Images of a folder, with what the folder says of them."""

    def __init__(self, root: Path, entries: Entries, classes: tuple[str, ...], fingerprint: str) -> None:
        self.root, self.entries, self.classes = root, entries, classes
        self.name = str(root)
        self._number = {label: number for number, label in enumerate(classes)}
        self.has_texts = len(entries.texts) > 0
        self.has_labels = bool(classes)
        # Few captions name colours or say what stands at a picture's edge; many say left and right.
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        label = None if entry.label is None else self._number[entry.label]
        return Sample(key=entry.file, picture=File(f"{self.name}/{entry.file}"), texts=entry.texts, label=label)

    def fingerprint(self) -> str:
        """Hash of the files' names, of the sizes of a few thousand, and of the metadata file."""
        return self._fingerprint


def open_folder(root: Path, keys: Keys = USUAL) -> Folder:
    """A folder as a source.

    Raises:
        UserError: when it is missing, not a folder, cannot be read, or holds no images, or its metadata lack a key.
    """
    if not root.exists():
        raise UserError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: a file, not a folder of images")
    try:
        return _described(root, keys) or _undescribed(root, keys)
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error})") from None


def _described(root: Path, keys: Keys) -> Folder | None:
    """The folder as its metadata file describes it; None where it has none."""
    metadata = next((root / name for name in METADATA if (root / name).is_file()), None)
    if metadata is None:
        return None
    entries = read_metadata(metadata, keys)
    sizes = some_sizes(root, entries.files)
    if max(sizes) < 0:
        raise UserError(
            f"{metadata}: none of the {len(entries)} files that it names is in {root} (the first is "
            f"'{entries[0].file}'); file_name is relative to the folder"
        )
    with metadata.open("rb") as file:
        described = hashlib.file_digest(file, "sha256").hexdigest()
    return Folder(root, entries, in_order(entries.classes), digest_of(entries.files, sizes, described, repr(keys)))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Classes by name; by number where all are numbers, so that 10 comes after 9."""
    found = list(names)
    numbers = all(name.isascii() and name.isdigit() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name), name) if numbers else (0, name)))


def _undescribed(root: Path, keys: Keys) -> Folder:
    if any(keys):
        raise UserError(f"{root}: keys are for a folder with {', '.join(METADATA)}, and it has none of them")
    images = sorted(file for file in names_in(root) if ending(file) in EXTENSIONS)
    if not images:
        raise UserError(_no_images(root))
    nested = all("/" in file for file in images)
    entries = Entries(Entry(file, label=file.split("/", 1)[0] if nested else None) for file in images)
    classes = tuple(sorted(entries.classes))
    if classes and SPLITS.issuperset(name.lower() for name in classes):
        raise UserError(
            f"{root}: its sub-folders ({', '.join(classes)}) are splits, not classes; "
            f"name one of them, such as {root / classes[0]}"
        )
    return Folder(root, entries, classes, digest_of(entries.files, some_sizes(root, entries.files)))


def _no_images(root: Path) -> str:
    kinds = Counter(ending(file) or "(none)" for file in names_in(root))
    if not kinds:
        return f"{root}: the folder is empty"
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
    return f"{root}: no images among its {kinds.total()} files ({seen}); images end in {' '.join(sorted(EXTENSIONS))}"
