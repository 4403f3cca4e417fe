"""The one objective, and the one place where the parts meet (M3I, eq. 4)."""

from __future__ import annotations

from onestage.objective.average import average, momentum
from onestage.objective.build import Answers
from onestage.objective.declare import (
    Ask,
    Ema,
    Frozen,
    Input,
    Method,
    Part,
    Term,
    Trained,
    asks,
    image_part,
    regulariser,
)
from onestage.objective.module import Objective
from onestage.objective.table import COLUMNS, term_rows

__all__ = [
    "COLUMNS",
    "Answers",
    "Ask",
    "Ema",
    "Frozen",
    "Input",
    "Method",
    "Objective",
    "Part",
    "Term",
    "Trained",
    "asks",
    "average",
    "image_part",
    "momentum",
    "regulariser",
    "term_rows",
]
