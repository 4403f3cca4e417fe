"""What `metadata.jsonl`, `metadata.csv` or `metadata.parquet` says of a folder's images.

Every entry has a `file_name`, and a text or a label or both: under `text`, `texts`, `caption` or `captions` one
caption or, but for CSV, a list of captions; under `label` a class's name or number. Other columns are ignored. A file
that has several entries has the texts of all of them. Files are read piece by piece, each piece bounded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from onestage.data.arrow import columns_of, rows_of
from onestage.data.entries import Entries, Entry, merged
from onestage.data.keys import FILES, LABELS, TEXTS, Keys, no_key
from onestage.spec import UserError

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
MAX_LINE = 1 << 20
"""Characters."""
MAX_METADATA = 4 << 30
"""Bytes."""


def read_metadata(metadata: Path, keys: Keys) -> Entries:
    """The entries of a metadata file, in its order; never empty.

    Raises:
        UserError: naming the entry that is not as it should be, or the keys that are there where one that was asked
            for is not.
    """
    if metadata.stat().st_size > MAX_METADATA:
        raise UserError(f"{metadata}: {metadata.stat().st_size} bytes, more than {MAX_METADATA}")
    seen: set[str] = set()
    entries = Entries()
    for number, row in enumerate(_rows(metadata, keys), start=1):
        seen.update(row)
        entries.append(_entry(f"{metadata}, entry {number}", row, keys))
    if not len(entries):
        raise UserError(f"{metadata}: describes no image; expected one line for each, with file_name and text or label")
    for what, asked in keys._asdict().items():
        if asked is not None and asked not in seen:
            raise no_key(str(metadata), what, asked, seen)
    return merged(str(metadata), entries)


def _rows(metadata: Path, keys: Keys) -> Iterator[dict[str, Any]]:
    match metadata.suffix:
        case ".jsonl":
            return json_rows(metadata)
        case ".csv":
            return _csv_rows(metadata)
        case _:
            there = columns_of(metadata)
            wanted = {*FILES, *TEXTS, *LABELS, *keys}
            rows = rows_of(metadata, [name for name in there if name in wanted])
            return (dict.fromkeys(there) | row for row in rows)


def _entry(where: str, row: dict[str, Any], keys: Keys) -> Entry:
    name, file = _value(row, keys.image, FILES)
    if not isinstance(file, str) or not file:
        known = ", ".join(str(key) for key in list(row)[:8])
        raise UserError(f"{where}: there is no {keys.image or FILES[0]} (found: {known})")
    path = PurePath(file)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {name} '{file}' leads out of the folder")
    return Entry(file, _texts(where, *_value(row, keys.text, TEXTS)), _label(where, *_value(row, keys.label, LABELS)))


def _value(row: dict[str, Any], asked: str | None, usual: tuple[str, ...]) -> tuple[str, Any]:
    """What a row has under the key that was asked for, or else under the first of the usual names; and that key."""
    names = usual if asked is None else (asked,)
    return next(((name, row[name]) for name in names if row.get(name) is not None), (names[0], None))


def _texts(where: str, key: str, given: Any) -> tuple[str, ...]:
    items = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(item, str) for item in items):
        raise UserError(f"{where}: {key} is {given!r:.80}; expected a string or a list of strings")
    return tuple(text for text in (item.strip() for item in items) if text)


def _label(where: str, key: str, given: Any) -> str | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise UserError(f"{where}: {key} is {given!r:.80}; expected a string or a whole number")
    return str(given)


def _lines(metadata: Path) -> Iterator[str]:
    with metadata.open(encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise UserError(f"{metadata}, line {number}: longer than {MAX_LINE} characters")
                yield line
        except UnicodeDecodeError:
            raise UserError(f"{metadata}, after line {number}: not UTF-8; save it in that encoding") from None


def json_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that has one a line.

    Raises:
        UserError: naming the line that is none, or is too long.
    """
    for number, line in enumerate(_lines(metadata), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{metadata}, line {number}: not valid JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{metadata}, line {number}: expected an object")
        yield row


def _csv_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    before = csv.field_size_limit(MAX_LINE)  # of the whole process
    try:
        yield from csv.DictReader(_lines(metadata), strict=True)
    except csv.Error as error:
        raise UserError(f"{metadata}: not valid CSV ({error})") from None
    finally:
        csv.field_size_limit(before)
