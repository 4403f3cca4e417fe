"""One shard of a store: checksums of pictures, parameters of their views, and the answers, as safetensors.

picture         (n, 16)         checksum of each picture
good            (n,)            whether it decodes
plan.VIEW       (n, K, 20)      box, flip, shrink, and up to seven colour operations, each with its factor
key.VIEW        (n, K, 2)       `view_key`
answer.NUMBER   (n, K, bytes)   the record of question NUMBER
sum.NUMBER      (n, K)          its CRC-32
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onestage.roles import Plan
from onestage.spec import UserError
from onestage.teachers.serving.key import Key

SUFFIX = ".safetensors"
_OPERATIONS = ("brightness", "contrast", "saturation", "hue", "grey", "blur", "solarize")
_PLAIN = 6
"""Numbers of a plan before its colour operations."""
PLAN = _PLAIN + 2 * len(_OPERATIONS)


class Viewed(NamedTuple):
    """The views of a picture and their answers: for each view its plans and keys, for each question its records."""

    picture: bytes
    plans: dict[str, list[Plan]]
    keys: dict[str, list[Key]]
    answers: list[np.ndarray]
    """(K, bytes) each; none where the picture does not decode."""


def numbers_of(plan: Plan) -> list[float]:
    """A plan as numbers."""
    colour = [number for name, factor in plan.colour for number in (_OPERATIONS.index(name) + 1, factor)]
    numbers = [*plan.box, plan.flip, plan.shrink, *colour]
    return [float(number) for number in numbers] + [0.0] * (PLAN - len(numbers))


def plan_of(numbers: np.ndarray) -> Plan:
    """The plan of these numbers."""
    top, left, height, width, flip, shrink, *colour = numbers.tolist()
    pairs = zip(colour[::2], colour[1::2], strict=True)
    operations = tuple((_OPERATIONS[int(name) - 1], factor) for name, factor in pairs if name)
    return Plan(
        box=(int(top), int(left), int(height), int(width)), flip=bool(flip), colour=operations, shrink=float(shrink)
    )


def write_shard(folder: Path, number: int, rows: list[Viewed], sizes: list[int], count: int, salt: str) -> Path:
    """Write a shard; it takes its name, which tells its content, when it is whole and on the disk.

    Raises:
        UserError: when the disk is full or may not be written.
    """
    tensors = _tensors(rows, sizes, count)
    path = folder / f"{number:06}-{_digest(tensors)}{SUFFIX}"
    temporary = folder / f".{number:06}.tmp"
    try:
        save_file(tensors, temporary, {"salt": salt})
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({error}). Free some space, and type it again.") from None
    return path


def _tensors(rows: list[Viewed], sizes: list[int], count: int) -> dict[str, np.ndarray]:
    n = len(rows)
    views = sorted({name for row in rows for name in row.plans})
    tensors = {
        "picture": np.frombuffer(b"".join(row.picture for row in rows), np.uint8).reshape(n, -1),
        "good": np.array([bool(row.plans) for row in rows]),
    }
    for name in views:
        plans, keys = np.zeros((n, count, PLAN)), np.zeros((n, count, 2), np.int64)
        for at, row in enumerate(rows):
            if row.plans:
                plans[at], keys[at] = [numbers_of(plan) for plan in row.plans[name]], row.keys[name]
        tensors |= {f"plan.{name}": plans, f"key.{name}": keys}
    for number, size in enumerate(sizes):
        answers = np.zeros((n, count, size), np.uint8)
        for at, row in enumerate(rows):
            if row.answers:
                answers[at] = row.answers[number]
        sums = [[zlib.crc32(record.data) for record in views] for views in answers]
        tensors |= {f"answer.{number}": answers, f"sum.{number}": np.array(sums, np.int64).reshape(n, count)}
    return tensors


def _digest(tensors: dict[str, np.ndarray]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor).data)
    return found.hexdigest()


@final
class Shard:
    """An open shard, read by rows.

    Raises:
        UserError: when it cannot be read, or belongs to another store.
    """

    def __init__(self, path: Path, salt: str) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="numpy")
            found = (self._file.metadata() or {}).get("salt")
        except (OSError, SafetensorError) as error:
            raise self.damaged(str(error)) from None
        if found != salt:
            raise UserError(f"{path}: a shard of another store (of other teachers, views or codec); remove it")

    def row(self, name: str, row: int) -> np.ndarray:
        """Row of a tensor: of one picture."""
        try:
            return self._file.get_slice(name)[row]
        except (SafetensorError, IndexError, ValueError) as error:
            raise self.damaged(f"{name}: {error}") from None

    def whole(self, name: str) -> np.ndarray:
        """A tensor of all pictures."""
        try:
            return self._file.get_tensor(name)
        except SafetensorError as error:
            raise self.damaged(f"{name}: {error}") from None

    def damaged(self, why: str) -> UserError:
        """What is said of a shard that is not as it was written."""
        return UserError(f"{self.path}: damaged ({why}). Remove it, and type the same onestage teach again.")


__all__ = ["SUFFIX", "Shard", "Viewed", "numbers_of", "plan_of", "write_shard"]
