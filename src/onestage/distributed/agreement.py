"""What one rank knows and all have to act on: a signal, a mistake. Exchanged on the CPU; every rank must ask."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist

from onestage.distributed.collectives import gather
from onestage.distributed.ranks import rank, world

LONGEST = 4000
"""Bytes of a text that are passed on."""


class Told(NamedTuple):
    """Which rank said something, the lowest if several did, and what."""

    rank: int
    text: str


def agreed(flag: bool) -> bool:
    """Whether any rank says yes. All ranks call it and get the same answer."""
    if world() == 1:
        return flag
    said = torch.tensor([int(flag)])
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return bool(said.item())


def told_anywhere(text: str | None) -> Told | None:
    """What any rank has to tell, None where none has. All ranks call it and get the same answer."""
    if not agreed(text is not None):
        return None
    encoded = (text or "").encode()[:LONGEST]
    row = torch.zeros(1, 1 + LONGEST, dtype=torch.uint8)
    row[0, 0] = text is not None
    row[0, 1 : 1 + len(encoded)] = torch.tensor(list(encoded), dtype=torch.uint8)
    rows = gather(row)
    first = int(rows[:, 0].argmax())
    said = (
        text
        if first == rank() and text is not None
        else bytes(rows[first, 1:].tolist()).rstrip(b"\0").decode(errors="ignore")
    )
    return Told(first, said)
