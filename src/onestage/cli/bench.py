"""The verb bench: figures as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tyro.conf import Positional

from onestage.cli.verb import Settings, Verb


@final
@dataclass(frozen=True)
class Bench(Verb):
    """Measure, and print one JSON line for each figure. loader: our batches against torchvision's and WebDataset's."""

    case: Positional[str]
    """what to measure: loader"""
    data: str | None = None
    """whose pictures are used; pictures are made in a temporary folder unless given"""
    images: int = 256
    """pictures that one measurement reads"""
    rounds: int = 5
    """measurements of everything that is compared, in turn"""

    def run(self, settings: Settings) -> int:
        import json

        from onestage import api

        for line in api.bench(self.case, data=self.data, images=self.images, rounds=self.rounds):
            print(json.dumps(line), flush=True)
        return 0
