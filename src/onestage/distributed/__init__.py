"""Several processes as one: the only room that imports torch.distributed.

The convention that makes gradients exact: the loss of a step is the **mean over ranks** of what each rank calls its
loss, as `Reducer` averages gradients. A likelihood may so return its own rows' share (`gather` gives it the rows of
the others), or the whole batch's loss on every rank. Everything here passes straight through in a single process.
"""

from __future__ import annotations

from onestage.distributed.agreement import Told, agreed, told_anywhere
from onestage.distributed.batch_norm import SyncBatchNorm, statistics, synchronise
from onestage.distributed.collectives import gather, mean, total
from onestage.distributed.ranks import gpus, join, local_rank, neighbours, rank, started, world
from onestage.distributed.reducer import Reducer, align

__all__ = [
    "Reducer",
    "SyncBatchNorm",
    "Told",
    "agreed",
    "align",
    "gather",
    "gpus",
    "join",
    "local_rank",
    "mean",
    "neighbours",
    "rank",
    "started",
    "statistics",
    "synchronise",
    "told_anywhere",
    "total",
    "world",
]
