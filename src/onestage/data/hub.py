"""`hf:NAME[:CONFIG][/SPLIT]`: data sets of the hub, or a folder that its library saved, through `datasets`.

NAME is a folder that `save_to_disk` wrote, a folder of Parquet or other files that the library knows, or a name on the
hub. Rows lie in files that are mapped into memory, so reading at random is cheap and memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final

from onestage.data.folders import SPLITS
from onestage.data.keys import USUAL, Keys
from onestage.data.table import Classes, Columns, classes_of, columns_of, sample_of
from onestage.roles import Sample, Source
from onestage.spec import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from pyarrow import Table

PREFIX = "hf:"
FORM = "hf:NAME[:CONFIG][/SPLIT]"
SAVED = ("state.json", "dataset_dict.json")
"""One of them lies in a folder that `save_to_disk` wrote."""
ROWS = 1024
HASHED = 64
"""Rows whose content goes into the fingerprint."""


class _Place(NamedTuple):
    """Where a data set is: a folder, or a name on the hub with its configuration; and the part of it."""

    name: str
    folder: Path | None
    config: str | None
    split: str | None


@final
class Hub(Source):
    """The rows of one split."""

    def __init__(self, name: str, rows: Dataset, columns: Columns, classes: Classes, root: Path | None) -> None:
        self.name, self.columns, self.root = name, columns, root
        self.rows = rows.select_columns(columns.names).with_format("arrow")
        self.classes, self._labels = classes.names, classes
        self.has_texts, self.has_labels = columns.text is not None, columns.label is not None
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return sample_of(str(index), self._cells(index), self.columns, self._labels, self.root)

    def fingerprint(self) -> str:
        """Hash of the number of rows, of the columns and classes, and of some rows that are spread over them."""
        digest = hashlib.sha256(repr((len(self), self.columns, self.classes)).encode("utf-8", "surrogatepass"))
        for index in range(0, len(self), max(len(self) // HASHED, 1)):
            digest.update(repr(self._cells(index)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    def _cells(self, index: int) -> dict[str, Any]:
        return cast("Table", self.rows[index]).to_pylist()[0]


def open_hub(text: str, keys: Keys = USUAL) -> Hub:
    """A source by what a user types: hf:NAME[:CONFIG][/SPLIT].

    Raises:
        UserError: when `datasets` is not installed, the data cannot be loaded, there is no such split, or no pictures.
    """
    place = _place(text)
    rows = _split(text, _loaded(text, place), place.split)
    columns = columns_of(text, rows.features.arrow_schema, keys)
    return Hub(text, rows, columns, _classes(rows, columns), place.folder)


def _place(text: str) -> _Place:
    words = text.removeprefix(PREFIX)
    path = Path(os.path.normpath(Path(words).absolute()))
    if words and path.is_dir():
        return _Place(words, path, None, None)
    if words and path.parent.is_dir() and "/" in words.rstrip("/"):
        return _Place(words.rpartition("/")[0], path.parent, None, path.name)
    parts = words.split("/")
    split = parts.pop() if len(parts) == 3 or (len(parts) == 2 and parts[1] in SPLITS) else None
    name, _, config = "/".join(parts).partition(":")
    if not name or len(parts) > 2:
        raise UserError(f"{text}: neither a folder nor a name on the hub; expected {FORM}")
    return _Place(name, None, config or None, split)


def _loaded(text: str, place: _Place) -> Dataset | DatasetDict:
    try:
        from datasets import load_dataset, load_from_disk
    except ImportError:
        raise UserError(f"{text}: is read by datasets: pip install 'onestage[hf]'") from None
    try:
        if place.folder is None:
            return load_dataset(place.name, place.config)
        if any((place.folder / name).is_file() for name in SAVED):
            return load_from_disk(str(place.folder))
        return load_dataset(str(place.folder))
    except Exception as error:  # whatever the library, the hub's client and the net raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        mend = (
            f"without a connection, name a folder: one that save_to_disk wrote, or one of Parquet files ({FORM})"
            if place.folder is None
            else "expected a folder that save_to_disk wrote, or one of Parquet files"
        )
        raise UserError(f"{text}: cannot be loaded ({reason}); {mend}") from None


def _split(text: str, loaded: Dataset | DatasetDict, asked: str | None) -> Dataset:
    from datasets import Dataset

    if isinstance(loaded, Dataset):
        if asked is not None:
            raise UserError(f"{text}: holds one split, and none is called '{asked}'; leave it out")
        return loaded
    names = [str(name) for name in loaded]
    if asked is None and len(names) > 1 and "train" not in names:
        raise UserError(f"{text}: which split? There are {', '.join(names)}; add one, such as {text}/{names[0]}")
    if asked is not None and asked not in names:
        raise UserError(f"{text}: there is no split '{asked}'; there are: {', '.join(names)}")
    return loaded[asked or ("train" if "train" in names else names[0])]


def _classes(rows: Dataset, columns: Columns) -> Classes:
    """The classes; of labels that have no names, all are read once."""
    if columns.label is None or columns.classes:
        return classes_of(columns, ())
    labels = rows.select_columns([columns.label]).with_format("arrow").iter(ROWS)
    return classes_of(columns, {label for batch in labels for label in cast("Table", batch).column(0).to_pylist()})
