"""Which rows of a view a term explains."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from onestage.ops import shown, withheld
from onestage.spec import UserError
from onestage.types import POOLED, Grid

CellRows = Literal["all", "kept", "hidden"]
RowsWanted = Literal["pooled", "all", "all+cls", "kept", "kept+cls", "hidden"]
"""`pooled`: the pooled row alone; `all`, `kept`, `hidden`: grid cells; `+cls`: the pooled row before them."""


def wanted_cells(
    rows: RowsWanted,
    hidden: Bool[Tensor, "b g"] | None,
    hidden_count: int,
    grid: Grid,
    batch: int,
    device: torch.device,
) -> Int[Tensor, "b m"]:
    """The cells of the target rows, ascending, `POOLED` first. Where nothing is hidden, `kept` is `all`.

    Raises:
        UserError: when hidden rows are asked for and the input hides nothing.
    """
    pooled = torch.full((batch, 1), POOLED, device=device)
    if rows == "pooled":
        return pooled
    cells = _cells(rows, hidden, hidden_count, grid[0] * grid[1], batch, device)
    return torch.cat([pooled, cells], dim=1) if rows in {"all+cls", "kept+cls"} else cells


def _cells(
    rows: RowsWanted,
    hidden: Bool[Tensor, "b g"] | None,
    hidden_count: int,
    count: int,
    batch: int,
    device: torch.device,
) -> Int[Tensor, "b m"]:
    if rows == "hidden":
        if hidden is None or hidden_count == 0:
            raise UserError("rows: hidden asks for the hidden cells, but the input hides none; give it a hide")
        return withheld(hidden, hidden_count)
    if rows in {"kept", "kept+cls"} and hidden is not None:
        return shown(hidden, count - hidden_count)
    return torch.arange(count, device=device).expand(batch, -1)
