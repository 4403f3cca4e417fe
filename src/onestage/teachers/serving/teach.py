"""Filling a store: every picture is cut K times, teachers answer, and a shard is written when it is whole.

Which samples go into which shard depends on the manifest alone, and views on (seed, sample, number of the view): so a
writer that was killed goes on where it was, losing the shard that was not finished, and several processes share the
work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onestage.data import generator
from onestage.data.decode import Pixels, Stored
from onestage.data.fast import Decoder, decode
from onestage.data.parallel import in_processes
from onestage.roles import BadSample, Plan, Source
from onestage.spec import UserError, to_yaml
from onestage.storage import write_atomic
from onestage.teachers.serving.codec import encode
from onestage.teachers.serving.key import picture_digest, view_key
from onestage.teachers.serving.live import Portions
from onestage.teachers.serving.manifest import FILE, Manifest, differences, read_manifest
from onestage.teachers.serving.server import rows_of
from onestage.teachers.serving.shard import Viewed, write_shard
from onestage.teachers.serving.store import shards_of
from onestage.views import ViewSpec

AT_ONCE = 64
"""Views of one question that teachers see at once, unless the recipe says otherwise."""


class Cut(NamedTuple):
    """The views of one sample: the checksum of its picture, the plans and the pixels of every view."""

    picture: bytes
    plans: dict[str, list[Plan]]
    pixels: dict[str, Tensor]
    """uint8 (K, 3, size, size)."""


def found(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest of the folder: the one that is there, if it is that of the same answers, or the new one.

    Raises:
        UserError: when the folder holds something else, or a store of other data, views or teachers.
    """
    if (folder / FILE).is_file():
        held = read_manifest(folder)
        reasons = list(differences(held, wanted))
        for name in ("fingerprint", "count", "codec", "seed", "samples"):
            if getattr(held, name) != getattr(wanted, name):
                reasons.append(f"its {name} is {getattr(held, name)}, not {getattr(wanted, name)}")
        if reasons:
            raise UserError(f"{folder}: holds another store: {'; '.join(reasons)}. Choose another --out.")
        return held
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds files, but no store to go on with; choose an empty or a new --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from None
    write_atomic(folder / FILE, to_yaml(wanted))
    return wanted


def fill(
    folder: Path,
    manifest: Manifest,
    source: Source,
    teachers: Portions,
    workers: int,
    shards: Callable[[list[int]], list[int]],
    tell: Callable[[int], None],
) -> int:
    """Write the missing shards.

    Args:
        shards: this process's part of the missing ones.
        tell: is told how many samples are done, of those in all shards.

    Returns:
        How many pictures do not decode.

    Raises:
        UserError: when the disk is full, or no picture decodes.
    """
    there = shards_of(folder, manifest)
    mine = shards([number for number in range(manifest.shards) if number not in there])
    numbers = [number for shard in mine for number in _samples(manifest, shard)]
    done = manifest.samples - len(numbers)
    tell(done)
    cuts = in_processes(partial(cut, source, manifest), numbers, workers)
    bad = 0
    for shard in mine:
        rows = list(_answered(cuts, len(_samples(manifest, shard)), manifest, teachers))
        bad += sum(not row.plans for row in rows)
        if bad == len(rows) == manifest.samples:
            raise UserError(f"{manifest.source}: none of its pictures decodes, so there is nothing to teach")
        sizes = [one.shape.size(manifest.codec) for one in manifest.answers]
        write_shard(folder, shard, rows, sizes, manifest.count, manifest.salt)
        done += len(rows)
        tell(done)
    return bad


def cut(source: Source, manifest: Manifest, number: int) -> Cut:
    """The views of sample `number`; none where it does not decode."""
    digest = b"\0" * 16
    try:
        sample = source[number]
        picture = sample.picture if isinstance(sample.picture, Stored) else Pixels(sample.picture.decode())
        size = picture.size
        digest = picture_digest(picture.encoded() if isinstance(picture, Stored) else picture.pixels)
        plans = {
            name: [
                view.plan(generator(manifest.seed, "teach", sample.key, index, name), *size)
                for index in range(manifest.count)
            ]
            for name, view in manifest.views.items()
        }
        decoder: Decoder = "fast" if manifest.decoder == "fast" else "pillow"
        shrink = min(plan.shrink for several in plans.values() for plan in several)
        rows = max(manifest.views[name].rows(plan) for name, several in plans.items() for plan in several)
        pixels, scale = decode(picture, decoder, shrink, rows)
    except BadSample:
        return Cut(digest, {}, {})
    views = {name: _cut(pixels, manifest.views[name], several, scale) for name, several in plans.items()}
    return Cut(digest, plans, views)


def _cut(pixels: np.ndarray, view: ViewSpec, plans: Sequence[Plan], scale: float) -> Tensor:
    """All views of one kind, uint8 (K, 3, size, size)."""
    assert view.size is not None, "a store is of views that have their sizes"
    views = np.empty((len(plans), 3, view.size, view.size), np.uint8)
    for plan, out in zip(plans, views, strict=True):
        view.cut(pixels, replace(plan, scale=scale), out)
    return torch.from_numpy(views)


def _samples(manifest: Manifest, shard: int) -> range:
    return range(shard * manifest.each, min((shard + 1) * manifest.each, manifest.samples))


def _answered(cuts: Iterator[Cut], count: int, manifest: Manifest, teachers: Portions) -> Iterator[Viewed]:
    """So many samples with the answers for their views, about `AT_ONCE` views at once."""
    several = max((teachers.most or AT_ONCE) // manifest.count, 1)
    for first in range(0, count, several):
        group = [next(cuts) for _ in range(min(several, count - first))]
        good = [one for one in group if one.plans]
        records = [_records(good, number, manifest, teachers) for number in range(len(manifest.answers))]
        at = 0
        for one in group:
            yield Viewed(one.picture, one.plans, _keys(one, manifest), [made[at] for made in records if one.plans])
            at += bool(one.plans)


def _records(good: list[Cut], number: int, manifest: Manifest, teachers: Portions) -> np.ndarray:
    """(samples, K, bytes) of one question."""
    one = manifest.answers[number]
    if not good:
        return np.zeros((0, manifest.count, 0), np.uint8)
    pixels = torch.cat([cut.pixels[one.view] for cut in good]).to(teachers.device)
    made = encode(rows_of(teachers.tokens(one.ask, pixels)), manifest.codec).cpu().numpy()
    return made.reshape(len(good), manifest.count, -1)


def _keys(one: Cut, manifest: Manifest) -> dict[str, list[tuple[int, int]]]:
    salt = bytes.fromhex(manifest.salt)
    return {
        name: [view_key(salt, one.picture, plan, manifest.views[name]) for plan in several]
        for name, several in one.plans.items()
    }
