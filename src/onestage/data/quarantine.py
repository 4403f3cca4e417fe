"""Samples that cannot be used: written down with the reason, and replaced by others, never in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, final

from onestage.data.random import generator
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError

T = TypeVar("T")

ATTEMPTS = 8
"""Replacements tried for one slot before it is given up."""
LIMIT = 0.5
"""A source more of which fails than this share is not a mishap but a mistake."""
WATCHED = (64, 256)
"""From so many distinct samples tried, and up to so many, the share is watched."""


@final
class Quarantine:
    """Appends one JSON line for every bad sample: {"source", "key", "reason"}.

    Each loading process has its own and writes a sample once; all of them may share one file, since a line is
    appended by a single write. Who reads the file takes each (source, key) once, as `count` does.

    Args:
        path: the file; None keeps no file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._bad: set[tuple[str, str]] = set()
        self._good: set[tuple[str, str]] = set()

    def report(self, source: str, key: str, reason: str) -> None:
        """Write a bad sample down.

        Raises:
            UserError: when most of what was tried is bad, or the file cannot be written.
        """
        if (source, key) in self._bad:
            return
        self._bad.add((source, key))
        if self.path is not None:
            _append(self.path, json.dumps({"source": source, "key": key, "reason": reason}) + "\n")
        tried = len(self._bad) + len(self._good)
        least, most = WATCHED
        if least <= tried <= most and len(self._bad) > LIMIT * tried:
            share = f"{len(self._bad)} of the first {tried} samples tried"
            raise UserError(f"{source}: {share} cannot be used (last: {key}: {reason}){self._where}")

    def passed(self, source: str, key: str) -> None:
        """Count a good sample, as long as the share is watched."""
        if len(self._bad) + len(self._good) < WATCHED[1]:
            self._good.add((source, key))

    def count(self) -> int:
        """Distinct bad samples: of all processes where there is a file, else of this one."""
        if self.path is None or not self.path.exists():
            return len(self._bad)
        with self.path.open(encoding="utf-8") as lines:
            rows = (json.loads(line) for line in lines if line.endswith("\n"))
            return len({(row["source"], row["key"]) for row in rows})

    def exhausted(self, source: str, reason: str) -> UserError:
        """The error for a slot that no replacement could fill either."""
        return UserError(
            f"{source}: a sample and {ATTEMPTS} others drawn in its place cannot be used (last: {reason}){self._where}"
        )

    @property
    def _where(self) -> str:
        return f". All of them are listed in {self.path}" if self.path is not None else ""


def _append(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{path}: the list of bad samples cannot be written ({error.strerror})") from None


def first_good(source: Source, index: int, seed: int, use: Callable[[Sample], T], quarantine: Quarantine) -> T:
    """What `use` makes of sample `index`; where that is bad, of the one that hash(seed, index, attempt) names.

    Args:
        use: everything that may raise `BadSample`: reading the size, decoding, making views.

    Raises:
        UserError: when no replacement works either, or most of the source is bad.
    """
    reason = ""
    for attempt in range(ATTEMPTS + 1):
        chosen = int(generator(seed, "replacement", index, attempt).integers(len(source))) if attempt else index
        key = str(chosen)
        try:
            sample = source[chosen]
            key = sample.key
            made = use(sample)
        except BadSample as error:
            reason = f"{key}: {error}"
            quarantine.report(source.name, key, str(error))
        else:
            quarantine.passed(source.name, key)
            return made
    raise quarantine.exhausted(source.name, reason)
