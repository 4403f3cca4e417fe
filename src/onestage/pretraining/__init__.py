"""The recipe, the loop, and resume."""

from __future__ import annotations

from onestage.pretraining.averaged import write_average
from onestage.pretraining.chain import (
    Chain,
    Finished,
    Stage,
    finished,
    is_chain,
    read_chain,
    resume_chain,
    start_chain,
)
from onestage.pretraining.check import check_recipe
from onestage.pretraining.directory import read_run, refuse_taken
from onestage.pretraining.initialise import Matched, initialise_from
from onestage.pretraining.loop import Progressed
from onestage.pretraining.pictures import pictures_of
from onestage.pretraining.prepare import Prepared, prepare
from onestage.pretraining.run import resume, start
from onestage.pretraining.spec import Recipe, Saving, Watch
from onestage.pretraining.teach import teach

__all__ = [
    "Chain",
    "Finished",
    "Matched",
    "Prepared",
    "Progressed",
    "Recipe",
    "Saving",
    "Stage",
    "Watch",
    "check_recipe",
    "finished",
    "initialise_from",
    "is_chain",
    "pictures_of",
    "prepare",
    "read_chain",
    "read_run",
    "refuse_taken",
    "resume",
    "resume_chain",
    "start",
    "start_chain",
    "teach",
    "write_average",
]
