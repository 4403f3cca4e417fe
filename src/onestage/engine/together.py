"""Mistakes that one process finds and all have to hear of, so that none waits for another that has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from onestage.distributed import gpus, join, local_rank, neighbours, rank, started, told_anywhere, world
from onestage.spec import Elsewhere, UserError

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process trains with the others that torchrun started.

    Raises:
        UserError: when there are more processes than GPUs on this machine.
    """
    if started() > 1 and 0 < gpus() <= local_rank():
        raise UserError(
            f"{neighbours()} processes were started on a machine with {gpus()} GPUs; each needs one of its own: "
            f"torchrun --nproc-per-node {gpus()} -m onestage ..."
        )
    with join():
        yield


def together(work: Callable[[], T]) -> T:
    """What `work` returns, once every rank has done its own. All ranks must come here.

    Raises:
        UserError: the mistake of the first rank that found one, on that rank; `Elsewhere` on the others.
    """
    if world() == 1:
        return work()
    made: list[T] = []
    mistake: UserError | None = None
    try:
        made.append(work())
    except UserError as error:
        mistake = error
    told = told_anywhere(None if mistake is None else str(mistake))
    if told is None:
        return made[0]
    raise mistake if mistake is not None and told.rank == rank() else Elsewhere(told.text)


@contextmanager
def telling() -> Iterator[None]:
    """Work of one rank alone: a `UserError` inside is raised here, and on the others where they next come
    `together`."""
    try:
        yield
    except UserError as error:
        if world() > 1:
            told_anywhere(str(error))
        raise


def for_all(text: str) -> UserError:
    """A mistake that all ranks found at the same place, to be told to people once."""
    return UserError(text) if rank() == 0 else Elsewhere(text)
