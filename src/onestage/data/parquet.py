"""`parquet:GLOB`: Parquet files with pictures in them, as the hubs write them, read at random by row groups.

A row is read with the row group that it lies in. The groups used last are kept, up to a bound, so that memory does not
grow with the set. Where groups are large and many, reading at random costs much more than a picture: `onestage data
pack` writes the same samples as shards once, group after group.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from onestage.data.arrow import open_file, reading, rows_of
from onestage.data.keys import USUAL, Keys
from onestage.data.patterns import files_named
from onestage.data.table import Classes, Columns, classes_of, columns_of, sample_of
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError

if TYPE_CHECKING:
    from pyarrow import Schema, Table
    from pyarrow.parquet import ParquetFile

PREFIX = "parquet:"
FORM = "parquet:GLOB"
KEPT = 128_000_000
"""Bytes of row groups that a process keeps."""
LARGE = 4_000_000
"""Bytes of a row group from which reading at random is told to be slow, if not all of them are kept."""
OPEN_FILES = 64
MAX_GROUP = 4 << 30
"""Bytes of a row group, unpacked."""


class Group(NamedTuple):
    """A row group: its file, its number and its first row there, its rows, and its bytes when it is unpacked."""

    file: int
    number: int
    first: int
    rows: int
    bytes: int


class _Footer(NamedTuple):
    """Of one file: its schema, its row groups, and the hash of the footer that tells of them."""

    schema: Schema
    groups: list[Group]
    digest: str


@final
class Groups:
    """Row groups of files, the ones used last in memory. Every process opens the files by itself."""

    def __init__(self, paths: Sequence[Path], groups: Sequence[Group], names: list[str]) -> None:
        self.paths, self.groups, self.names = paths, groups, names
        self._process = os.getpid()
        self._files: OrderedDict[int, ParquetFile] = OrderedDict()
        self._tables: OrderedDict[int, Table] = OrderedDict()

    def __reduce__(self) -> tuple[type[Groups], tuple[Any, ...]]:
        """What is open stays in its process."""
        return Groups, (self.paths, self.groups, self.names)

    def read(self, number: int) -> Table:
        """A row group.

        Raises:
            BadSample: when it cannot be read.
        """
        if self._process != os.getpid():
            self._process, self._files, self._tables = os.getpid(), OrderedDict(), OrderedDict()
        if number in self._tables:
            self._tables.move_to_end(number)
        else:
            self._tables[number] = self._unpacked(self.groups[number])
            while len(self._tables) > 1 and sum(table.nbytes for table in self._tables.values()) > KEPT:
                self._tables.popitem(last=False)
        return self._tables[number]

    def _unpacked(self, group: Group) -> Table:
        if group.bytes > MAX_GROUP:
            raise BadSample(f"its row group has {group.bytes} bytes, more than {MAX_GROUP}")
        path = self.paths[group.file]
        try:
            with reading(path):
                return self._file(group.file).read_row_group(group.number, columns=self.names, use_threads=False)
        except UserError as error:
            raise BadSample(str(error)) from None

    def _file(self, number: int) -> ParquetFile:
        known = self._files.pop(number, None)
        self._files[number] = open_file(self.paths[number]) if known is None else known
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return self._files[number]


@final
class Parquet(Source):
    """The rows of Parquet files, in their order."""

    def __init__(self, name: str, groups: Groups, columns: Columns, classes: Classes, fingerprint: str) -> None:
        self.name, self.groups, self.columns = name, groups, columns
        self.classes, self._labels = classes.names, classes
        self.has_texts, self.has_labels = columns.text is not None, columns.label is not None
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        folder = os.path.commonpath([path.parent for path in groups.paths])
        self._names = [path.relative_to(folder).as_posix() for path in groups.paths]
        self._starts = np.cumsum([0, *(group.rows for group in groups.groups)])
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[number])
        group = self.groups.groups[number]
        cells = self.groups.read(number).slice(row, 1).to_pylist()[0]
        key = f"{self._names[group.file]}@{group.first + row}"
        return sample_of(key, cells, self.columns, self._labels, self.groups.paths[group.file].parent)

    def fingerprint(self) -> str:
        """Hash of the files' footers: sizes, places and statistics of all that is in them."""
        return self._fingerprint


def open_parquet(text: str, keys: Keys = USUAL) -> Parquet:
    """A source by what a user types: parquet:GLOB, or ranges such as parquet:train-{00000..00127}.parquet.

    Raises:
        UserError: when no file is found, one is damaged or has other columns, or there are no pictures in them.
    """
    paths = [path.absolute() for path in files_named(text.removeprefix(PREFIX), "Parquet file")]
    footers = [_footer(path) for path in paths]
    first = footers[0].schema
    columns = columns_of(text, first, keys)
    for path, footer in zip(paths, footers, strict=True):
        for name in columns.names:
            if name not in footer.schema.names or footer.schema.field(name).type != first.field(name).type:
                told = ", ".join(f"{field.name} ({field.type})" for field in footer.schema)
                raise UserError(f"{path}: has no column '{name}' of {first.field(name).type} as {paths[0]} has: {told}")
    groups = [group._replace(file=file) for file, footer in enumerate(footers) for group in footer.groups]
    if sum(group.rows for group in groups) == 0:
        raise UserError(f"{text}: {len(paths)} files without a row")
    _say_what_is_slow(text, [group.bytes for group in groups])
    digest = hashlib.sha256(repr((keys, [footer.digest for footer in footers])).encode())
    classes = _classes(paths, columns)
    return Parquet(text, Groups(paths, groups, columns.names), columns, classes, digest.hexdigest()[:32])


def _footer(path: Path) -> _Footer:
    """What a file says of itself at its end (the Parquet format: a footer, its length, and PAR1)."""
    with open_file(path) as file:
        sizes = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        starts = np.cumsum([0, *(size.num_rows for size in sizes)]).tolist()
        groups = [
            Group(0, number, start, size.num_rows, size.total_byte_size)
            for number, (start, size) in enumerate(zip(starts, sizes, strict=False))
        ]
        schema = file.schema_arrow
    with path.open("rb") as raw:
        raw.seek(-8, os.SEEK_END)
        length = int.from_bytes(raw.read(4), "little")
        raw.seek(-8 - length, os.SEEK_END)
        return _Footer(schema, groups, hashlib.sha256(raw.read(length)).hexdigest())


def _classes(paths: Sequence[Path], columns: Columns) -> Classes:
    """The classes; of labels that have no names, all are read once."""
    if columns.label is None or columns.classes:
        return classes_of(columns, ())
    return classes_of(columns, {row[columns.label] for path in paths for row in rows_of(path, [columns.label])})


def _say_what_is_slow(text: str, sizes: list[int]) -> None:
    if sum(sizes) > KEPT and max(sizes) > LARGE:
        print(
            f"{text}: has row groups of up to {max(sizes) / 1e6:.0f} MB, and a picture that is read at random costs a "
            "whole one; hf:FOLDER, or shards made by `onestage data pack`, are read faster",
            file=sys.stderr,
        )
