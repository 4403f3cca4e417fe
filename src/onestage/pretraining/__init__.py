"""The recipe, the loop, and resume."""

from __future__ import annotations

from onestage.pretraining.check import check_recipe
from onestage.pretraining.directory import read_run
from onestage.pretraining.initialise import Matched, initialise_from
from onestage.pretraining.loop import Progressed
from onestage.pretraining.pictures import pictures_of
from onestage.pretraining.prepare import Prepared, prepare
from onestage.pretraining.run import resume, start
from onestage.pretraining.spec import Recipe, Saving, Watch
from onestage.pretraining.teach import teach

__all__ = [
    "Matched",
    "Prepared",
    "Progressed",
    "Recipe",
    "Saving",
    "Watch",
    "check_recipe",
    "initialise_from",
    "pictures_of",
    "prepare",
    "read_run",
    "resume",
    "start",
    "teach",
]
