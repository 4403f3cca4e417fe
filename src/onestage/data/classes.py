"""Files of class names."""

from __future__ import annotations

import json
from pathlib import Path

from onestage.spec import UserError

MAX_BYTES = 1 << 24
"""Of a file of class names."""


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in the order of their labels: one a line, or a list of strings in a `.json` file.

    Raises:
        UserError: when the file cannot be read, is too large, or holds anything but names.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for class names (at most {MAX_BYTES})")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a file of class names ({error})") from None
    names = _from_json(path, text) if path.suffix == ".json" else [line.strip() for line in text.rstrip().split("\n")]
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{path}: class {number} has an empty name; every label needs one, in order")
    return tuple(names)


def _from_json(path: Path, text: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f'{path}: expected a list of class names, such as ["cat", "dog"]')
    return [name.strip() for name in names]
