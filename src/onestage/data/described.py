"""What `metadata.jsonl` or `metadata.csv` says of a folder's images.

Every entry has a `file_name`, and `text` or `label` or both. `text` is one caption or, in JSON, a list of captions;
`label` is a class's name or number. Other columns are ignored. Files are read line by line, each line bounded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from onestage.spec import UserError

METADATA = ("metadata.jsonl", "metadata.csv")
MAX_LINE = 1 << 20
"""Characters."""
MAX_METADATA = 4 << 30
"""Bytes."""


class Entry(NamedTuple):
    """One image of a folder: its path inside it, its texts, and the name of its class."""

    file: str
    texts: tuple[str, ...] = ()
    label: str | None = None


def read_metadata(metadata: Path) -> list[Entry]:
    """The entries of a metadata file, in its order; never empty.

    Raises:
        UserError: naming the entry that is not as it should be.
    """
    if metadata.stat().st_size > MAX_METADATA:
        raise UserError(f"{metadata}: {metadata.stat().st_size} bytes, more than {MAX_METADATA}")
    rows = _json_rows(metadata) if metadata.suffix == ".jsonl" else _csv_rows(metadata)
    entries = [_entry(f"{metadata}, entry {number}", row) for number, row in enumerate(rows, start=1)]
    if not entries:
        raise UserError(f"{metadata}: describes no image; expected one line for each, with file_name and text or label")
    return entries


def _entry(where: str, row: dict[str, Any]) -> Entry:
    file = row.get("file_name")
    if not isinstance(file, str) or not file:
        known = ", ".join(str(key) for key in list(row)[:8])
        raise UserError(f"{where}: there is no file_name (found: {known})")
    path = PurePath(file)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: file_name '{file}' leads out of the folder")
    return Entry(file, _texts(where, row.get("text")), _label(where, row.get("label")))


def _texts(where: str, given: Any) -> tuple[str, ...]:
    items = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(item, str) for item in items):
        raise UserError(f"{where}: text is {given!r:.80}; expected a string or a list of strings")
    return tuple(text for text in (item.strip() for item in items) if text)


def _label(where: str, given: Any) -> str | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise UserError(f"{where}: label is {given!r:.80}; expected a string or a whole number")
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


def _json_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(metadata), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{metadata}, line {number}: not valid JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{metadata}, line {number}: expected an object with file_name and text or label")
        yield row


def _csv_rows(metadata: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MAX_LINE)
    try:
        yield from csv.DictReader(_lines(metadata), strict=True)
    except csv.Error as error:
        raise UserError(f"{metadata}: not valid CSV ({error})") from None
