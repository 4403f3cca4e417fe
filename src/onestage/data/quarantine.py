"""Samples that cannot be used: written down with the reason, and replaced by others, never in silence."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
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
WATCHED = (64, 512)
"""The share is that of so many draws in a row; at the beginning of fewer, but of so many at least."""
_TOLD = 3
"""Reasons that a summary tells."""


@final
class Quarantine:
    """Appends one JSON line for every bad sample: {"source", "key", "reason"}.

    Each loading process has its own and writes a sample once; all of them may share one file, since a line is
    appended by a single write. Who reads the file takes each (source, key) once, as `count` does.

    The run stops, with a summary, where more than `LIMIT` of the last draws failed, or a sample and `ATTEMPTS` others
    in its place: a disk that went away is not trained through.

    Args:
        path: the file; None keeps no file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._bad: set[tuple[str, str]] = set()
        self._last: deque[str | None] = deque(maxlen=WATCHED[1])

    def report(self, source: str, key: str, reason: str) -> None:
        """Write a bad sample down that was drawn at random.

        Raises:
            UserError: when most of what was drawn of late is bad, or the file cannot be written.
        """
        self._last.append(reason)
        self.note(source, key, reason)
        failed, drawn = sum(one is not None for one in self._last), len(self._last)
        if drawn >= WATCHED[0] and failed > LIMIT * drawn:
            share = f"{failed} of the last {drawn} samples drawn"
            raise UserError(f"{source}: {share} cannot be used ({self._summary}; last: {key}){self._where}")

    def note(self, source: str, key: str, reason: str) -> None:
        """Write a bad sample down that came in the order of its source, where bad ones may lie side by side.

        Raises:
            UserError: when the file cannot be written.
        """
        if (source, key) in self._bad:
            return
        self._bad.add((source, key))
        if self.path is not None:
            _append(self.path, json.dumps({"source": source, "key": key, "reason": reason}) + "\n")

    def passed(self) -> None:
        """Count a good sample."""
        self._last.append(None)

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
            f"{source}: a sample and {ATTEMPTS} others drawn in its place cannot be used "
            f"({self._summary}; last: {reason}){self._where}"
        )

    @property
    def _summary(self) -> str:
        """The commonest reasons of late."""
        counted = Counter(reason for reason in self._last if reason is not None).most_common()
        others = sum(count for _, count in counted[_TOLD:])
        told = [f"{count} x {reason}" for reason, count in counted[:_TOLD]] + [f"{others} for others"] * (others > 0)
        return ", ".join(told)

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
            quarantine.passed()
            return made
    raise quarantine.exhausted(source.name, reason)
