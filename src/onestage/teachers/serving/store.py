"""A store of views and answers, found by the checksum of a picture: which source it comes from does not matter."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from onestage.roles import Plan
from onestage.spec import UserError
from onestage.teachers.serving.manifest import Manifest, read_manifest
from onestage.teachers.serving.shard import SUFFIX, Shard, plan_of
from onestage.types import Mark

OPEN = 128
"""Shards that are held open."""


def shards_of(folder: Path, manifest: Manifest) -> dict[int, Path]:
    """The shards of a store that are there, by number.

    Raises:
        UserError: when one is there twice, or has a number that no shard of this store has.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"[0-9]*-*{SUFFIX}")):
        number = int(path.name.partition("-")[0])
        if number in found or number >= manifest.shards:
            raise UserError(
                f"{path}: a foreign shard (number {number} of {manifest.shards}, or there twice); remove it"
            )
        found[number] = path
    return found


@final
class Store:
    """Reads a finished store.

    A place is a picture's number in the store times views of a picture, plus the view's number.

    Raises:
        UserError: when it is unfinished, or a shard is damaged or foreign.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self.paths = shards_of(folder, self.manifest)
        missing = self.manifest.shards - len(self.paths)
        if missing:
            raise UserError(
                f"{folder}: unfinished, {missing} of {self.manifest.shards} shards are missing; go on with the same "
                "onestage teach"
            )
        self._held: OrderedDict[int, Shard] = OrderedDict()
        pictures = [self._shard(number).whole("picture") for number in range(self.manifest.shards)]
        self._starts = np.cumsum([0, *map(len, pictures)])
        digests = np.concatenate(pictures).view("<u8")
        self._order = np.lexsort((digests[:, 1], digests[:, 0]))
        self._sorted = digests[self._order]

    def __len__(self) -> int:
        """Pictures."""
        return len(self._order)

    def find(self, picture: bytes) -> int | None:
        """The number of a picture by its checksum; None where it is not there."""
        first, second = np.frombuffer(picture, "<u8")
        at = int(np.searchsorted(self._sorted[:, 0], first))
        while at < len(self._sorted) and self._sorted[at, 0] == first:
            if self._sorted[at, 1] == second:
                return int(self._order[at])
            at += 1
        return None

    def plan(self, picture: int, view: str, number: int) -> Plan | None:
        """How a view of a picture is cut; None where the picture did not decode."""
        shard, row = self._at(picture)
        return plan_of(shard.row(f"plan.{view}", row)[number]) if shard.row("good", row) else None

    def records(self, question: int, mark: Mark, view: str) -> UInt8[Tensor, "v bytes"]:
        """The answers of these views to a question.

        Raises:
            UserError: when one is damaged, or is not that of the view that is asked about.
        """
        keys = [tuple(key) for key in mark.key.tolist()]
        found = [self._record(question, place, key, view) for place, key in zip(mark.place.tolist(), keys, strict=True)]
        return torch.from_numpy(np.stack(found))

    def _record(self, question: int, place: int, key: tuple[int, ...], view: str) -> np.ndarray:
        picture, number = divmod(place, self.manifest.count)
        shard, row = self._at(picture)
        if tuple(shard.row(f"key.{view}", row)[number].tolist()) != key:
            raise UserError(
                f"{shard.path}: picture {row}, view {number}: its answer is not that of this view (another box, flip, "
                "size, interpolation, teacher or codec), and is not used"
            )
        record = shard.row(f"answer.{question}", row)[number]
        if zlib.crc32(np.ascontiguousarray(record).data) != int(shard.row(f"sum.{question}", row)[number]):
            raise shard.damaged(f"picture {row}, view {number}: its check sum is another")
        return record

    def _at(self, picture: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self._starts, picture, side="right")) - 1
        return self._shard(number), picture - int(self._starts[number])

    def _shard(self, number: int) -> Shard:
        if number not in self._held:
            self._held[number] = Shard(self.paths[number], self.manifest.salt)
            if len(self._held) > OPEN:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]
