"""What a verb is: a frozen dataclass whose fields tyro reads from the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod

Settings = dict[str, str]
"""Leaves of a recipe by dotted path, as typed."""


class Verb(ABC):
    """One command. `settings` are leaves of the recipe, by dotted path, where the verb takes any."""

    takes_settings: bool = False

    @abstractmethod
    def run(self, settings: Settings) -> int:
        """Do it, and return the exit code."""
