"""One recipe with several seeds: a run for each, and how far their results lie apart."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onestage.distributed import rank
from onestage.engine.together import together
from onestage.pretraining.directory import refuse_taken
from onestage.pretraining.loop import Progressed
from onestage.pretraining.run import start
from onestage.pretraining.spec import Recipe
from onestage.spec import UserError
from onestage.storage import write_atomic


def parse_seeds(seeds: str | Sequence[int]) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        UserError: when they are not different whole numbers.
    """
    try:
        numbers = [int(seed) for seed in (seeds.split(",") if isinstance(seeds, str) else seeds)]
    except ValueError:
        raise UserError(f"--seeds {seeds}: expected whole numbers with commas, such as 0,1,2") from None
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds {seeds}: expected different numbers, one for each run, such as 0,1,2")
    return numbers


def start_seeds(
    recipe: Recipe, folder: Path, numbers: list[int], command: list[str], say: Callable[[str], None]
) -> None:
    """A run for each seed, and how far their results lie apart."""
    together(lambda: refuse_taken(folder))
    finished = [
        start(dataclasses.replace(recipe, seed=seed), folder / f"seed_{seed}", command, say) for seed in numbers
    ]
    if rank() == 0:
        write_atomic(folder / "seeds.json", json.dumps(_spread(numbers, finished), indent=1) + "\n")


def _spread(seeds: list[int], finished: list[Progressed]) -> dict[str, Any]:
    """Mean and standard deviation of the best watched value over seeds."""
    best = [run.best for run in finished if run.best is not None]
    spread = {"mean": statistics.fmean(best), "std": statistics.stdev(best) if len(best) > 1 else 0.0} if best else {}
    return {"seeds": seeds, "best": best, **spread}
