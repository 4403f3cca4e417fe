"""What a verb is: a frozen dataclass whose fields tyro reads from the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from tyro.conf import Positional, arg

Source = Annotated[str | None, arg(metavar="SRC", help_behavior_hint="")]
Folder = Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")]
Reference = Annotated[str | None, arg(metavar="REF", help_behavior_hint="")]
File = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
"""Options that may be left out, by what they take."""
GivenFolder = Annotated[str, arg(metavar="DIR")]
GivenRecipe = Positional[Annotated[str, arg(metavar="RECIPE")]]
GivenSource = Positional[Annotated[str, arg(metavar="SRC")]]
GivenRun = Positional[Annotated[str, arg(metavar="RUN")]]
"""What has to be given."""

Settings = dict[str, str]
"""Leaves of a recipe by dotted path, as typed."""


class Verb(ABC):
    """One command. `settings` are leaves of the recipe, by dotted path, where the verb takes any."""

    takes_settings: bool = False

    @abstractmethod
    def run(self, settings: Settings) -> int:
        """Do it, and return the exit code."""
