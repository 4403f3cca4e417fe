"""Work on the parts of a source in several processes, in order. A user's mistake in one of them arrives as it is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, final

import torch
from torch.utils.data import DataLoader, Dataset

from onestage.spec import UserError

T = TypeVar("T")


@final
class _Told(Dataset[Any]):
    """What is made of every part, or what is wrong: raised in a worker, it would arrive wrapped in a traceback."""

    def __init__(self, make: Callable[[int], object]) -> None:
        self.make = make

    def __getitem__(self, part: int) -> object:
        try:
            return self.make(part)
        except UserError as error:
            return error


def in_processes(make: Callable[[int], T], parts: range | list[int], workers: int) -> Iterator[T]:
    """`make(part)` for every part, in order; with no workers, in this process.

    Raises:
        UserError: the first that `make` raised.
    """
    loader = DataLoader(
        _Told(make),
        batch_size=None,
        sampler=parts,
        num_workers=min(workers, len(parts)),
        collate_fn=_as_it_is,
        worker_init_fn=_settle if workers else None,
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        yield made


def _as_it_is(made: T) -> T:
    return made


def _settle(worker: int) -> None:
    """One thread each; Ctrl-C is for the process that waits."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
