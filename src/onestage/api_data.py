"""The verb `data` as functions: data_show, data_index, data_check, data_pack, data_cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from onestage.data import is_shards, open_source
from onestage.data.cut import Cut, cut
from onestage.data.pack import Packed, pack
from onestage.data.patterns import files_named
from onestage.data.shard_index import Index
from onestage.data.shards import indexes_of
from onestage.data.sheet import contact_sheet
from onestage.data.survey import Survey, survey
from onestage.data.verify import Fault, verify
from onestage.engine.progress import Progress
from onestage.spec import UserError


def data_show(source: str, *, out: str | Path | None = None, look: int = 1000) -> Survey:
    """What a source holds: counts, keys, sizes, captions, repeats and classes; and ten of its samples as a picture.

    Args:
        out: a PNG file for the ten samples, spread over the source, with their texts, labels, boxes and masks.
        look: samples that are looked at, spread over the source.

    Raises:
        UserError: when the source cannot be opened, or the file cannot be written.
    """
    if look < 1:
        raise UserError(f"data show: --look {look} must be above 0")
    if out is not None and Path(out).suffix.lower() != ".png":
        raise UserError(f"data show: --out {out}: the picture of the samples is a PNG file, such as samples.png")
    opened = open_source(source)
    seen = survey(opened, look)
    if out is not None:
        contact_sheet(opened, Path(out))
    return seen


def data_index(source: str) -> list[str]:
    """Make the missing and stale indexes of tar shards.

    Returns:
        A line for each shard: its samples, its kinds of members, and whatever of it cannot be read.

    Raises:
        UserError: when it names no shards, or an index cannot be written.
    """
    if not is_shards(source):
        raise UserError(f"data index {source}: an index is for tar shards, such as shards/{{000..127}}.tar")
    return [line for index in indexes_of(files_named(source, "shard")) for line in _summary(index)]


def data_check(source: str, *, workers: int | None = None) -> tuple[int, list[Fault]]:
    """Decode every sample of a source and, in shards, check every member against its check sum.

    Returns:
        How many samples there are, and all faults.

    Raises:
        UserError: when the source cannot be opened.
    """
    opened = open_source(source)
    with Progress(len(opened)) as progress:
        return len(opened), verify(opened, _processes(workers), lambda done, total: progress.update(done))


def data_pack(
    source: str,
    *,
    out: str | Path,
    size: int | None = None,
    shard_mb: float = 256.0,
    workers: int | None = None,
) -> Packed:
    """Write a source as tar shards; typed again after an interruption, it goes on where it was.

    Args:
        size: pictures whose shorter side is longer are brought down to it, as JPEG; without it, files stay as they are.
        shard_mb: size of a shard, about, in 10^6 bytes.

    Raises:
        UserError: when the source cannot be opened, or the folder cannot be used.
    """
    if (size is not None and size < 1) or shard_mb <= 0:
        raise UserError(f"data pack: --size {size} and --shard-mb {shard_mb:g} must be above 0")
    opened = open_source(source)
    with ExitStack() as stack:
        shown: dict[int, Progress] = {}

        def tell(done: int, total: int) -> None:
            if total not in shown:
                shown[total] = stack.enter_context(Progress(total, done))
            shown[total].update(done)

        return pack(opened, Path(out), size, shard_mb, _processes(workers), tell)


def data_cut(source: str, *, out: str | Path, size: int | None = None, workers: int | None = None) -> Cut:
    """Cut the clips of a source of videos into files; typed again after an interruption, it goes on where it was.

    Args:
        size: frames whose shorter side is longer are brought down to it.

    Raises:
        UserError: when the source cannot be opened or has no clips, or the folder cannot be used.
    """
    if size is not None and size < 2:
        raise UserError(f"data cut: --size {size} must be above 1")
    opened = open_source(source)
    with Progress(len(opened)) as progress:
        return cut(opened, Path(out), size, _processes(workers), lambda done, total: progress.update(done))


def _summary(index: Index) -> Iterator[str]:
    counts = np.bincount(index.kind, minlength=len(index.kinds)).tolist()
    kinds = ", ".join(f"{count} {kind}" for kind, count in zip(index.kinds, counts, strict=True))
    yield f"{index.shard}: {index.samples} samples ({kinds or 'no members'})"
    for damage in index.damage:
        yield f"{index.shard}: byte {damage.offset}: {damage.reason} ({damage.size} bytes are not read)"


def _processes(workers: int | None) -> int:
    if workers is not None and workers < 0:
        raise UserError(f"--workers {workers}: expected 0 (this process alone) or more")
    return min(os.cpu_count() or 1, 16) if workers is None else workers
