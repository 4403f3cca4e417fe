"""What the readers of annotation files share: bounded JSON, what lies under a key, names of files, fingerprints."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from onestage.data.entries import Strings
from onestage.data.listing import digest_of, some_sizes
from onestage.sample import BadSample
from onestage.spec import UserError

MAX_JSON = 4 << 30
"""Bytes of a file of annotations."""
MAX_CLASSES = 1 << 16
MAX_FIELD = 1 << 22
"""Bytes of a file of annotations of one image."""
Corners = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""


def read_json(path: Path) -> Any:
    """What a file of annotations holds, as plain values.

    Raises:
        UserError: when it cannot be read, is too large, or is no JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path}: {path.stat().st_size} bytes, more than {MAX_JSON}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({str(error)[:120]})") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a list of files that are not empty.

    Raises:
        UserError: when it cannot be read, is too large, or no text.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path}: {path.stat().st_size} bytes, more than {MAX_JSON}")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it in that encoding") from None
    if any("\0" in line for line in lines):
        raise UserError(f"{path}: no list of files: it has a zero byte")
    return [line for line in lines if line]


def listed(path: Path, told: Any, key: str, form: str) -> list[dict[str, Any]]:
    """The list of objects under a key of a file.

    Raises:
        UserError: when there is none; it says which keys are there.
    """
    rows = told.get(key) if isinstance(told, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: no list of objects under '{key}' ({keys_in(told)}); expected {form}")
    return rows


def needed(where: str, row: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """What an object has under a key.

    Raises:
        UserError: when it has nothing there, or something else; it says which keys are there.
    """
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        raise UserError(f"{where}: {key} is {value!r:.60} ({keys_in(row)})")
    return value


def keys_in(told: Any) -> str:
    """Which keys there are, in words."""
    if not isinstance(told, dict):
        return f"it is a {type(told).__name__}, not an object"
    return f"there are: {', '.join(str(key) for key in list(told)[:20]) or 'none'}"


def inside(where: str, file: str) -> str:
    """The name of a file that lies in a folder.

    Raises:
        UserError: when it leads out of it.
    """
    if PurePath(file).is_absolute() or ".." in PurePath(file).parts or "\0" in file:
        raise UserError(f"{where}: file '{file}' leads out of the folder")
    return file


def fingerprint_of(where: str, folder: Path, files: Iterable[str], told: Sequence[Path], *more: str) -> str:
    """Hash of the files' names, the sizes of some, the content of what describes them, and what else is told.

    Raises:
        UserError: when none of the files is there, or a description cannot be read.
    """
    names = Strings(files)
    sizes = some_sizes(folder, names)
    if not sizes:
        raise UserError(f"{where}: describes no image")
    if max(sizes) < 0:
        raise UserError(f"{where}: none of the {len(names)} files that it names is in {folder} (the first: {names[0]})")
    try:
        digests = []
        for path in told:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    return digest_of(names, sizes, *digests, *more)


def numbers(where: str, given: Any, count: int) -> tuple[float, ...]:
    """So many finite numbers.

    Raises:
        BadSample: when they are something else.
    """
    if isinstance(given, list) and len(given) == count and all(type(one) in {int, float} for one in given):
        with suppress(OverflowError):  # a whole number of hundreds of digits
            values = tuple(map(float, given))
            if all(map(math.isfinite, values)):
                return values
    raise BadSample(f"{where}: {given!r:.80} are not {count} numbers")


def content_of(path: Path) -> bytes:
    """What a small file that belongs to one sample holds.

    Raises:
        BadSample: when it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FIELD + 1)
    except OSError as error:
        raise BadSample(f"{path.name}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_FIELD:
        raise BadSample(f"{path.name}: more than {MAX_FIELD} bytes")
    return content
