"""What a run says of itself while it trains: the short line of progress, and alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from onestage.objective import COLLAPSED

Say = Callable[[str], None]
"""Where a line for people goes."""
QUIET = ("spread/", "bound/", "share/", "cosine/", "regulariser/", "lr")
"""Measured and written, but too many to be read on a terminal."""


def short(line: Mapping[str, float]) -> dict[str, str]:
    """The part of a record that a line of progress shows."""
    return {name: f"{value:.4g}" for name, value in line.items() if not name.startswith(QUIET)}


@final
class Alarms:
    """Says, once for each term, when its targets have become alike: then it teaches nothing, however low its loss."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._raised: set[str] = set()

    def hear(self, line: Mapping[str, float]) -> None:
        """Look at one record."""
        for name, value in line.items():
            term = name.removeprefix("spread/")
            if name.startswith("spread/") and value < COLLAPSED and term not in self._raised:
                self._raised.add(term)
                self._say(
                    f"terms.{term}: its targets are nearly alike (spread {value:.2g}; 1 is healthy, 0 a collapse). "
                    "A low loss means nothing now: raise the momentum of the average, add a regulariser, or lower lr."
                )
