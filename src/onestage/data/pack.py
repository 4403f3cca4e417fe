"""Writing any source as tar shards in WebDataset's format, in parallel; a killed packing goes on where it was.

A plan is written first: which samples go into which shard depends on it alone. A shard appears under its name when it
is whole and on the disk, and what is there already is not made again. So what comes out is the same bytes, however
often the packing was interrupted.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from onestage.data.parallel import in_processes
from onestage.data.quarantine import Quarantine
from onestage.data.shard_about import write_about
from onestage.data.shard_scan import index_shard
from onestage.data.shard_write import members_of
from onestage.data.shards import CLASSES, indexes_of
from onestage.roles import BadSample, Source
from onestage.spec import UserError
from onestage.storage import write_atomic

PLAN = "pack.json"
QUARANTINE = "quarantine.jsonl"
PROBED = 64
"""Samples whose size is looked at for the plan."""


@final
class Packed(NamedTuple):
    """What lies in the folder after packing."""

    shards: int
    samples: int
    """All of the source, the bad ones among them."""
    bad: int


class _Plan(NamedTuple):
    source: str
    fingerprint: str
    samples: int
    size: int | None
    each: int
    """Samples of a shard."""

    @property
    def shards(self) -> int:
        return -(-self.samples // self.each)


def pack(
    source: Source, out: Path, size: int | None, megabytes: float, workers: int, tell: Callable[[int, int], None]
) -> Packed:
    """Write a source as shards `out/000000.tar` and so on, with their indexes and, where it has labels, `classes.txt`.

    Args:
        size: pictures whose shorter side is longer are brought down to it; None leaves every file as it is.
        megabytes: size of a shard, about.
        tell: is told how many shards are done, of how many.

    Raises:
        UserError: when the folder holds something else, or its packing was of another source or size.
    """
    plan = _planned(source, out, size, megabytes)
    if any("\n" in name for name in source.classes):
        raise UserError(f"{source.name}: a class has a line's end in its name; {CLASSES} holds one name a line")
    write_about(out, source)
    if source.classes:
        write_atomic(out / CLASSES, "".join(f"{name}\n" for name in source.classes))
    quarantine = out / QUARANTINE
    missing = [shard for shard in range(plan.shards) if not _path(out, shard).exists()]
    done = plan.shards - len(missing)
    tell(done, plan.shards)
    for _ in in_processes(partial(_write, source, plan, out), missing, workers):
        done += 1
        tell(done, plan.shards)
    indexes_of([_path(out, shard) for shard in range(plan.shards)])  # killed before an index, it left a shard alone
    for left in out.glob(".*.tmp"):
        left.unlink(missing_ok=True)
    return Packed(plan.shards, plan.samples, Quarantine(quarantine).count())


def _planned(source: Source, out: Path, size: int | None, megabytes: float) -> _Plan:
    """The plan of the folder: the one that is there, or a new one."""
    file = out / PLAN
    if file.is_file():
        told = _read_plan(file)
        if (told.fingerprint, told.size) != (source.fingerprint(), size):
            raise UserError(
                f"{out}: holds a packing of {told.source} at size {told.size}, and this one is of {source.name} at "
                f"size {size} or of changed data; choose another folder"
            )
        return told
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds files, but no packing to go on with; choose an empty or a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made ({error.strerror})") from None
    each = max(int(megabytes * 1e6 / _mean_bytes(source, size)), 1)
    plan = _Plan(source.name, source.fingerprint(), len(source), size, each)
    write_atomic(file, json.dumps(plan._asdict(), indent=1) + "\n")
    return plan


def _read_plan(file: Path) -> _Plan:
    try:
        if file.stat().st_size > 1 << 20:
            raise ValueError("too large")
        plan = _Plan(**json.loads(file.read_text(encoding="utf-8")))
        if not (isinstance(plan.samples, int) and isinstance(plan.each, int) and plan.samples > 0 and plan.each > 0):
            raise ValueError("its numbers are wrong")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: no plan of a packing ({error}); choose another folder") from None
    return plan


def _mean_bytes(source: Source, size: int | None) -> float:
    """Bytes of a sample in a shard, by samples spread over the source; one kilobyte is a member's least."""
    step = max(len(source) // PROBED, 1)
    found = []
    for index in range(0, len(source), step)[:PROBED]:
        try:
            found.append(sum(len(content) + 1024 for content in members_of(source[index], size).values()))
        except BadSample:
            continue
    return float(np.mean(found)) if found else 1e5


def _path(out: Path, shard: int) -> Path:
    return out / f"{shard:06}.tar"


def _write(source: Source, plan: _Plan, out: Path, shard: int) -> int:
    """Write one shard: bad samples are written down first, and the file takes its name last."""
    path = _path(out, shard)
    temporary, quarantine = path.with_name(f".{path.name}.tmp"), Quarantine(out / QUARANTINE)
    written = 0
    try:
        with temporary.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for index in range(shard * plan.each, min((shard + 1) * plan.each, plan.samples)):
                    written += _add(tar, source, index, plan.size, quarantine)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Free some space, and type it again.") from None
    index_shard(path)
    return written


def _add(tar: tarfile.TarFile, source: Source, index: int, size: int | None, quarantine: Quarantine) -> bool:
    key = str(index)
    try:
        sample = source[index]
        key = sample.key
        members = members_of(sample, size)
    except BadSample as error:
        quarantine.note(source.name, key, str(error))
        return False
    for kind, content in members.items():
        member = tarfile.TarInfo(f"{index:09}.{kind}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return True
