"""Looking at every sample of a source, and at every byte of a shard: what would be lost in training, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from onestage.data.adapted import Adapted
from onestage.data.parallel import in_processes
from onestage.data.shards import Shards
from onestage.roles import BadSample, Sample, Source

PART = 256
"""Samples that a process looks at in one go."""
FRAMES = 16
"""Of a clip, that are held at a time."""


class Fault(NamedTuple):
    """A sample or a member that cannot be used."""

    key: str
    reason: str


def verify(source: Source, workers: int, tell: Callable[[int, int], None]) -> list[Fault]:
    """Every fault of a source: samples that do not decode and, in shards, members with another check sum.

    Args:
        workers: processes; 0 works in this one.
        tell: is told how many samples are done, of how many.
    """
    starts = range(0, len(source), PART)
    faults: list[Fault] = []
    for done, found in enumerate(in_processes(partial(_part, source, starts), range(len(starts)), workers), start=1):
        faults += found
        tell(min(done * PART, len(source)), len(source))
    return faults


def _part(source: Source, starts: range, part: int) -> list[Fault]:
    return [
        fault for index in range(starts[part], min(starts[part] + PART, len(source))) for fault in _of(source, index)
    ]


def _of(source: Source, index: int) -> list[Fault]:
    key, faults = str(index), []
    try:
        stored = source.source if isinstance(source, Adapted) else source
        if isinstance(stored, Shards):
            faults += [Fault(name, _differ(told, found)) for name, told, found in stored.sums(index) if told != found]
        sample = source[index]
        key = sample.key
        width, height = sample.picture.size
        shape = sample.picture.decode().shape
        if shape != (height, width, 3):
            faults.append(Fault(key, f"its header says {width} x {height}, its pixels {shape[1]} x {shape[0]}"))
        faults += [Fault(key, fault) for fault in _beside(sample, (height, width))]
    except BadSample as error:
        faults.append(Fault(key, str(error)))
    return faults


def _beside(sample: Sample, shape: tuple[int, int]) -> Iterator[str]:
    """What is wrong with what a sample has beside its picture: masks of another size, a clip without frames."""
    for what, masks in (("mask is", sample.mask), ("instances are", sample.instances)):
        found = shape if masks is None else masks.decode().shape[-2:]
        if found != shape:
            yield f"its {what} {found[1]} x {found[0]}, but the picture {shape[1]} x {shape[0]}"
    if sample.second is not None:
        sample.second.decode()
    if sample.clip is not None:
        times = sample.clip.times()
        for start in range(0, len(times), FRAMES):
            sample.clip.decode(times[start : start + FRAMES])
        if not times:
            yield f"no frame between {sample.clip.start:g} s and {sample.clip.stop:g} s"


def _differ(told: int, found: int) -> str:
    return f"its crc32 is {found:08x}, but was {told:08x} when the index was made"
