"""How far a predictor sees."""

from __future__ import annotations

from typing import Literal

Reach = Literal["rows", "cells", "grid", "views"]
"""`rows`: only cells whose rows the encoder returned; `cells`: any cell of the input's view, hidden ones too; `grid`:
the same, and the pooled row; `views`: any cell of any view of the same sample."""
