"""Work on the parts of a source in several processes, in order. A user's mistake in one of them arrives as it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        UserError: the first that `make` raised; or that a process was killed.
    """
    loader = DataLoader(
        _Told(make),
        batch_size=None,
        sampler=parts,
        num_workers=min(workers, len(parts)),
        collate_fn=_as_it_is,
        worker_init_fn=_settle if workers else None,
    )
    with none_lost("free some and start again; fewer processes (where there is --workers) need less"):
        for made in loader:
            if isinstance(made, UserError):
                raise made
            yield made


@contextmanager
def none_lost(remedy: str) -> Iterator[None]:
    """Where a loading process is killed, torch raises wherever it finds this one: inside the block, a message.

    Raises:
        UserError: then, with the remedy.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises the same again at each signal
        raise UserError(f"a loading process was killed, as a rule because memory ran out; {remedy}") from None


def _as_it_is(made: T) -> T:
    return made


def _settle(worker: int) -> None:
    """One thread each; Ctrl-C is for the process that waits."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
