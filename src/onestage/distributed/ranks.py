"""Which process this is: what torchrun says in the environment. gloo on the CPU, nccl on GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets. Where one is missing, this process is alone, whatever the others say."""
PATIENCE = timedelta(hours=2)
"""How long ranks wait for one another: rank 0 may evaluate meanwhile. A rank that dies is noticed at once."""
SETTLES = 0.1
"""Seconds that gloo's thread is given to finish with the last exchange."""


def world() -> int:
    """How many processes train together; 1 outside `join`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0. Rank 0 alone writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def local_rank() -> int:
    """The number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if started() > 1 else 0


def neighbours() -> int:
    """How many of the processes run on this machine, this one included: they share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(started()))) if started() > 1 else 1


@contextmanager
def join() -> Iterator[None]:
    """Inside, this process is one of those that torchrun started. Each takes the GPU of its number, where there
    are any. Alone, or inside another `join`, nothing happens."""
    if started() == 1 or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if gpus():
        torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl"  # flags are agreed on the CPU, so that nothing waits for the GPU
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        # gloo's thread takes the interpreter's lock to drop the tensors of its last exchange. The group's destructor
        # waits for that thread and may hold the lock itself, for ever: so the thread is let through first.
        time.sleep(SETTLES)
        dist.destroy_process_group()


def gpus() -> int:
    """How many GPUs this machine has."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def started() -> int:
    """How many processes torchrun started, this one among them; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in NEEDED) else 1
