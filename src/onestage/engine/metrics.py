"""What a run measures: JSON lines on disk, and sums of losses on the device between two of them.

A record is one JSON object a line, `{"step": 120, "seconds": 33.1, ...}`; `step` counts the steps done.
Numbers that are not finite are written as null, so that every line is JSON for every reader.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from onestage.spec import UserError

MAX_LINE_BYTES = 1 << 20


@final
class Metrics:
    """Appends records to a file of JSON lines, each handed to the system at once.

    Args:
        path: the file, made if need be.
        step: steps already done when the run goes on. Records of later steps, and a last line that a crash
            tore, are taken out first (atomically), so that no step stands twice. At 0 the run starts anew
            and nothing stays.

    Raises:
        UserError: when the file cannot be read or written, or is damaged before its last line.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self._path = path
        if path.exists():
            _truncate(path, step)
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Args:
            record: plain JSON values by name, among them an integer `step`.
        """
        if type(record.get("step")) is not int:
            raise ValueError(f"a record needs an integer step, got {record.get('step')!r}")
        try:
            self._file.write(json.dumps(_finite(record), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class Meter:
    """Means of named losses over the steps between two readings. Adding does not wait for the device; reading
    does, once. Steps whose value is not finite (skipped ones) are left out of the mean."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Float[Tensor, "2 n"] | None = None

    def add(self, values: Mapping[str, Float[Tensor, ""]]) -> None:
        """Add one step: the same names each time, all on one device."""
        names = tuple(values)
        if self._sums is not None and names != self._names:
            raise ValueError(f"a meter of {self._names} cannot add {names}")
        row = torch.stack([value.detach().float() for value in values.values()])
        finite = row.isfinite()
        new = torch.stack([row.where(finite, 0.0), finite.float()])
        self._names, self._sums = names, new if self._sums is None else self._sums + new

    def read(self) -> dict[str, float]:
        """The mean of each since the last reading, nan where no step was finite; empty if none was added."""
        if self._sums is None:
            return {}
        sums, counts = self._sums.tolist()
        self._sums = None
        return {
            name: total / count if count else math.nan
            for name, total, count in zip(self._names, sums, counts, strict=True)
        }


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a file. A last line that a crash tore is left out.

    Raises:
        UserError: when the file cannot be read, or a line before the last is damaged.
    """
    try:
        return list(_records(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        number, torn = 0, False
        while line := file.readline(MAX_LINE_BYTES + 1):
            if torn:
                raise UserError(f"{path}, line {number}: not a JSON object with a step; remove or mend the line.")
            number += 1
            record = _parse(line)
            torn = record is None
            if record is not None:
                yield record


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None  # torn, or too long; a torn number would still parse (12 of 120)
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _truncate(path: Path, step: int) -> None:
    """Leave the records up to a step, by way of a new file, so that a crash leaves the old or the new one."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for record in _records(path) if step > 0 else ():
                if record["step"] <= step:
                    file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _finite(value: Any) -> Any:
    """Plain values with null for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error}). Free some space or mend the permissions, then resume.")
