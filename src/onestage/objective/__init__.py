"""The one objective, and the one place where the parts meet (M3I, eq. 4)."""

from __future__ import annotations

from onestage.objective.asks import Ask, asks, depth_read
from onestage.objective.average import average, momentum
from onestage.objective.balance import Balance, shares
from onestage.objective.build import Answers
from onestage.objective.compose import add, hiding, unblended
from onestage.objective.declare import (
    Ema,
    EncoderRole,
    Frozen,
    Input,
    Method,
    Part,
    Term,
    Trained,
    regulariser,
)
from onestage.objective.module import Objective
from onestage.objective.monitor import COLLAPSED
from onestage.objective.oracles import verified_by
from onestage.objective.table import COLUMNS, term_rows

__all__ = [
    "COLLAPSED",
    "COLUMNS",
    "Answers",
    "Ask",
    "Balance",
    "Ema",
    "EncoderRole",
    "Frozen",
    "Input",
    "Method",
    "Objective",
    "Part",
    "Term",
    "Trained",
    "add",
    "asks",
    "average",
    "depth_read",
    "hiding",
    "momentum",
    "regulariser",
    "shares",
    "term_rows",
    "unblended",
    "verified_by",
]
