"""THE TABLE: every published method as a row. A new row is one declaration here and one name below."""

from __future__ import annotations

from onestage.methods.contrastive import CLIP
from onestage.methods.distilled import FD, UTA
from onestage.methods.masked import EVA, MAE, MVP
from onestage.methods.supervised import SUPERVISED
from onestage.objective import Method

METHODS: dict[str, Method] = {row.name: row for row in (SUPERVISED, CLIP, FD, MAE, EVA, MVP, UTA)}

__all__ = ["CLIP", "EVA", "FD", "MAE", "METHODS", "MVP", "SUPERVISED", "UTA"]
