"""What is known of many files, in a few arrays: a million entries are no million objects, and processes share them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, final

import numpy as np

from onestage.spec import UserError

_UNICODE = "surrogatepass"
"""Names of files may hold bytes that are no UTF-8, which Python keeps as surrogates."""


class Entry(NamedTuple):
    """One image of a folder: its path inside it, its texts, and the name of its class."""

    file: str
    texts: tuple[str, ...] = ()
    label: str | None = None


@final
class Strings:
    """Strings as one array of bytes and the end of each."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._content, self._ends = bytearray(), array("q", [0])
        for string in strings:
            self.append(string)

    def append(self, string: str) -> None:
        """Add one at the end."""
        self._content += string.encode("utf-8", _UNICODE)
        self._ends.append(len(self._content))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._content[self._ends[index] : self._ends[index + 1]].decode("utf-8", _UNICODE)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@final
class Entries:
    """Many entries, in their order."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.files, self.texts = Strings(), Strings()
        self._ends, self._labels = array("q", [0]), array("q")
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        for entry in entries:
            self.append(entry)

    @property
    def classes(self) -> frozenset[str]:
        return frozenset(self._names)

    def append(self, entry: Entry) -> None:
        """Add one at the end."""
        self.files.append(entry.file)
        for text in entry.texts:
            self.texts.append(text)
        self._ends.append(len(self.texts))
        self._labels.append(-1 if entry.label is None else self._number(entry.label))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Entry:
        file, label = self.files[index], self._labels[index]
        texts = tuple(self.texts[number] for number in range(self._ends[index], self._ends[index + 1]))
        return Entry(file, texts, None if label < 0 else self._names[label])

    def counts(self) -> np.ndarray:
        """How many texts each has, int64."""
        return np.diff(np.frombuffer(self._ends, np.int64))

    def _number(self, label: str) -> int:
        if label not in self._numbers:
            self._numbers[label] = len(self._names)
            self._names.append(label)
        return self._numbers[label]


def merged(where: str, entries: Entries) -> Entries:
    """Each file once, where it first came: one that came again has the texts of all its entries.

    Raises:
        UserError: when it came again with another class.
    """
    hashes = np.fromiter((hash(file) for file in entries.files), np.int64, len(entries))
    _, first, same = np.unique(hashes, return_index=True, return_inverse=True)
    if len(first) == len(entries):
        return entries
    owner = first[same]
    order = np.argsort(owner, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(owner[order])) + 1)
    return Entries(one for group in groups for one in _together(where, [entries[int(number)] for number in group]))


def _together(where: str, alike: list[Entry]) -> Iterator[Entry]:
    """The entries whose files' names have one hash: as a rule, one file."""
    for file in dict.fromkeys(entry.file for entry in alike):
        own = [entry for entry in alike if entry.file == file]
        labels = list(dict.fromkeys(entry.label for entry in own if entry.label is not None))
        if len(labels) > 1:
            raise UserError(f"{where}: {file} has the label '{labels[0]}' and again '{labels[1]}'; an image has one")
        yield Entry(file, tuple(text for entry in own for text in entry.texts), labels[0] if labels else None)
