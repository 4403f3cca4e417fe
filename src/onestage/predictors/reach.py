"""How far a predictor sees."""

from __future__ import annotations

from typing import Literal

Reach = Literal["rows", "grid", "views"]
"""`rows`: only cells whose rows the encoder returned; `grid`: any cell of the input's view, hidden ones too;
`views`: any cell of any view of the same sample."""
