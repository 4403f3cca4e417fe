"""How far a predictor sees."""

from __future__ import annotations

from typing import Literal

Reach = Literal["rows", "grid"]
"""`rows`: only cells whose rows the encoder returned; `grid`: any cell, hidden ones too."""
