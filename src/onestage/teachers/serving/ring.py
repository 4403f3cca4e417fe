"""A file on a local disk that holds the last answers for each sample: fast to read, cheap to lose.

A sample's place is its number, so a new answer takes the place of the old one, and there is nothing to evict. Where
the budget has no place for all samples, those with the lowest numbers have one, and the others are asked for each time:
a cache that let the oldest go would lose most answers before they are needed again, since every epoch has an order of
its own. Processes of one machine share the file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from onestage.spec import UserError
from onestage.teachers.serving.key import KEY_BYTES


class Read(NamedTuple):
    """The records of some places, and which of them are the wanted ones."""

    records: UInt8[Tensor, "b bytes"]
    found: Bool[Tensor, " b"]


@final
class Ring:
    """Records by place, each with the key of what it is.

    Args:
        path: the file; its name must tell what it holds, since a file that is there is used.
        size: bytes of a record.
        places: how many records fit.

    Raises:
        UserError: when the disk is full or may not be written.
    """

    def __init__(self, path: Path, size: int, places: int) -> None:
        self.path, self.places = path, places
        _reserve(path, places * (KEY_BYTES + size))
        whole = np.memmap(path, dtype=np.uint8, mode="r+", shape=(places * (KEY_BYTES + size),))
        self._keys = whole[: places * KEY_BYTES].view("<i8").reshape(places, 2)
        self._records = whole[places * KEY_BYTES :].reshape(places, size)

    def read(self, place: Int[Tensor, " b"], key: Int[Tensor, "b 2"]) -> Read:
        """The records at these places; what is not found has no meaning."""
        asked, wanted = place.numpy(), key.numpy()
        inside = asked < self.places
        at = np.where(inside, asked, 0)
        before = self._keys[at]
        records = self._records[at]
        # Another process may have written meanwhile: it takes the key away first and gives it back last.
        found = inside & (before == wanted).all(axis=1) & (self._keys[at] == wanted).all(axis=1)
        return Read(torch.from_numpy(records), torch.from_numpy(found))

    def write(self, place: Int[Tensor, " b"], key: Int[Tensor, "b 2"], records: UInt8[Tensor, "b bytes"]) -> None:
        """Keep these records; those without a place are let go."""
        inside = place.numpy() < self.places
        at = place.numpy()[inside]
        self._keys[at] = 0
        self._records[at] = records.numpy()[inside]
        self._keys[at] = key.numpy()[inside]

    def remove(self) -> None:
        """Remove the file. What is mapped of it stays readable."""
        self.path.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Make the file at its full size unless it is there: a page that the disk has no room for ends a process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if path.is_file() and path.stat().st_size == size:
                return
            temporary = path.with_name(f".{path.name}.tmp")
            try:
                with temporary.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: {size / 1e9:.3g} GB for the teacher's answers cannot be had ({error.strerror}). Lower "
            "serving.mode.gigabytes, or set serving.mode.folder to a folder on another disk."
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
