"""The verb bench: figures as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from tyro.conf import Positional, arg

from onestage.cli.verb import Settings, Verb


@final
@dataclass(frozen=True)
class Bench(Verb):
    """Measure, and print one JSON line for each figure. Each case has options of its own, as --name VALUE
    (onestage ls benches lists cases and options).
    """

    case: Positional[Annotated[str, arg(metavar="CASE")]]
    """what to measure (onestage ls benches)"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        import json

        from onestage import api

        for line in api.bench(self.case, settings):
            print(json.dumps(line), flush=True)
        return 0
