"""What a run will cost before it is started: bytes, time in each way of serving its teachers, memory, break-even.

Per image, with D, T, S, O for loading, teacher, student and the rest of a step, W and R for putting an answer away and
taking it out:

    live       max(D / workers, T + S + O)                 replay(r)  max(D / workers, (T + W) / r + R + S + O)
    store(K)   max(D / workers, R + S + O), after K (T + W) for each picture once

With no workers, loading is added instead.
"""

from __future__ import annotations

from typing import NamedTuple

from onestage.bench.costs import Costs

REPLAYS = (2, 4, 8)
STORES = (1, 4, 10)


class Rates(NamedTuple):
    """Of a kind of GPU: TFLOP/s that a training step reaches, TB/s of its memory, and GB of it."""

    tflops: float
    bandwidth: float
    gigabytes: float


GPUS = {"h200": Rates(590.0, 4.3, 139.0), "h100": Rates(540.0, 3.0, 78.0), "a100": Rates(170.0, 1.7, 78.0)}
"""Assumed where the machine is not at hand: 75 % of the dense rate that large matrix products reach (790 measured on an
H200, about 720 and 230 elsewhere), which is what fused element-wise work leaves of it. A model, not a measurement."""


class Load(NamedTuple):
    """The size of a run: pictures, images of the whole run, loading processes, bytes of an answer, and GFLOP for an
    image of teacher (forward) and student (forward and backward)."""

    pictures: int
    images: int
    workers: int
    answer: dict[str, int]
    teacher_gflop: float
    student_gflop: float
    memory: float
    """Bytes on one device: weights, gradients, optimiser, teachers and activations."""
    parameters: int
    batch: int


class Way(NamedTuple):
    """One way of serving: its name, bytes on the disk (int8), seconds for an image, hours of the run on all devices,
    hours to fill a store before, and the teacher's share of a step."""

    name: str
    disk: int
    seconds: float
    hours: float
    before: float
    share: float


def seconds_of(costs: Costs, workers: int, epochs: int, kept: bool) -> float:
    """Seconds for an image on one device: `epochs` is how often an answer is used, 0 for ever."""
    teacher = 0.0 if not epochs else (costs.teacher + (costs.keep if kept else 0.0)) / epochs
    work = teacher + (costs.read if kept else 0.0) + costs.student + costs.rest
    return max(costs.data / workers, work) if workers else costs.data + work


def ways(costs: Costs, load: Load, gpus: int) -> list[Way]:
    """Every way of serving; without a teacher, live alone."""
    size = load.answer["int8"]

    def way(name: str, epochs: int, kept: bool, disk: int, before: float = 0.0) -> Way:
        seconds = seconds_of(costs, load.workers, epochs, kept)
        asked = costs.teacher / epochs if epochs else 0.0
        return Way(name, disk, seconds, seconds * load.images / gpus / 3600, before / gpus / 3600, asked / seconds)

    found = [way("live", 1, kept=False, disk=0)]
    if not size:
        return found
    found += [way(f"replay({r})", r, kept=True, disk=load.pictures * size) for r in REPLAYS]
    for views in STORES:
        before = load.pictures * (views * (costs.teacher + costs.keep) + costs.data / max(load.workers, 1))
        found.append(way(f"store({views})", 0, kept=True, disk=load.pictures * views * size, before=before))
    return found


def break_even(way: Way, live: Way, load: Load, gpus: int) -> float | None:
    """Passes over the data after which a store, with its filling, has cost less than live; None for never."""
    saved = (live.seconds - way.seconds) * load.pictures / gpus / 3600
    return way.before / saved if saved > 0 else None


def modelled(load: Load, kind: Rates) -> Costs:
    """Costs on a GPU that is not at hand; loading is not modelled, and answers are read as fast as memory is."""
    rate = kind.tflops * 1e3
    rest = load.parameters * 28 / (kind.bandwidth * 1e12) / load.batch
    read = load.answer["int8"] / (kind.bandwidth * 1e12)
    return Costs(0.0, load.teacher_gflop / rate, load.student_gflop / rate, rest, read, read)


def told(costs: Costs, load: Load, gpus: int, where: str) -> str:
    """The plan as text for people."""
    found = ways(costs, load, gpus)
    lines = [
        f"{load.images:,} images of {load.pictures:,} pictures, {gpus} x {where}",
        f"an image: loading {costs.data * 1e3:.3g} ms in one process, teacher {costs.teacher * 1e3:.3g}, "
        f"student {costs.student * 1e3:.3g}, rest of the step {costs.rest * 1e3:.3g}, "
        f"answer put away {costs.keep * 1e3:.2g}, taken out {costs.read * 1e3:.2g} ms",
        f"GFLOP for an image: teacher {load.teacher_gflop:.4g}, student {load.student_gflop:.4g}",
        f"memory of one device: about {load.memory / 1e9:.3g} GB",
    ]
    if load.answer["int8"]:
        lines.append(f"an answer: {load.answer['int8']:,} bytes as int8, {load.answer['fp16']:,} as fp16")
    head = f"{'':12}{'disk (int8)':>14}{'img/s':>12}{'run':>14}{'fill before':>13}{'teacher':>9}  cheaper than live"
    lines += ["", head]
    for way in found:
        even = break_even(way, found[0], load, gpus)
        after = "never" if even is None else f"after {even:.3g} passes" if way.before else "yes"
        after = "" if way is found[0] else after
        lines.append(
            f"{way.name:12}{way.disk / 1e9:>11.4g} GB{gpus / way.seconds:>12.4g}{_hours(way.hours):>14}"
            f"{_hours(way.before) if way.before else '':>13}{way.share:>9.0%}  {after}".rstrip()
        )
    return "\n".join(lines)


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.3g} s"
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 48 else f"{hours / 24:.3g} days"
