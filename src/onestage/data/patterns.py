"""Many files under one name: a pattern with * or ?, or ranges such as {000..127}."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from onestage.spec import UserError

MAX_FILES = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def files_named(text: str, what: str) -> list[Path]:
    """The files that a name, a pattern or ranges stand for, in order.

    Args:
        what: what they are called in an error.

    Raises:
        UserError: when there are none, or one of a range is missing.
    """
    paths: list[Path] = []
    missing = []
    for name in _ranged(text):
        found = [Path(name)] if Path(name).is_file() else _matching(name)
        missing += [] if found else [name]
        paths += found
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{text}: there is no such {what}: {missing[0]}{more}")
    return paths


def _matching(pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    fixed = next((n for n, part in enumerate(parts) if any(letter in part for letter in "*?[")), len(parts))
    if fixed == len(parts):
        return []
    return sorted(path for path in Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))) if path.is_file())


def _ranged(text: str) -> Iterator[str]:
    """A name for every number of its ranges, `{000..127}`; the zeros are kept."""
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = found[1], found[2]
    if int(last) < int(first) or int(last) - int(first) >= MAX_FILES:
        raise UserError(f"{text}: the range {found[0]} is empty or too long; it counts up, such as {{000..127}}")
    for number in range(int(first), int(last) + 1):
        yield from _ranged(f"{text[: found.start()]}{number:0{len(first)}}{text[found.end() :]}")
