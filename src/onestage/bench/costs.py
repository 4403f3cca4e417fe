"""What a step is made of, measured on this machine: loading, teacher, student, the rest of a step, and kept answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from onestage.bench.timing import in_turn
from onestage.engine.pieces import on_device, split
from onestage.objective import Ask
from onestage.pretraining import Prepared
from onestage.teachers.serving.codec import Answered, Codec, decode, encode
from onestage.teachers.serving.ring import Ring
from onestage.teachers.serving.server import rows_of
from onestage.types import Batch, Tokens

CODEC: Codec = "int8"


class Costs(NamedTuple):
    """Seconds for an image: loading it in one process, the teacher's forward pass, the student's forward and backward
    pass, the rest of a step (optimiser, averages), putting an answer away, and taking it out."""

    data: float
    teacher: float
    student: float
    rest: float
    keep: float
    read: float


def measured(prepared: Prepared, rounds: int = 5) -> Costs:
    """The least of some rounds, everything in turn: whatever else the machine does only adds. It trains: what is
    prepared is for this alone."""
    batch = on_device(prepared.batches[0], prepared.device)
    pieces = split(batch, prepared.recipe.accumulate)
    numbers, answers = iter(range(1, 10**6)), dict[Ask, Tokens]()

    def load() -> None:
        on_device(prepared.batches[next(numbers)], prepared.device)

    def answer() -> None:
        for piece in pieces:
            answers.update({ask: prepared.server(ask, piece) for ask in prepared.step.asks})

    def learn() -> None:
        for piece in pieces:
            backward(prepared, piece, answers)

    work: dict[str, Callable[[], None]] = {
        "data": load,
        "teacher": answer,
        "student": learn,
        "step": lambda: _step(prepared, batch),
    }
    with TemporaryDirectory() as folder:
        answer()
        seen = {ask: tokens for ask, tokens in answers.items() if ask.view in prepared.recipe.method.views}
        work |= _keeping(prepared, seen, Path(folder))
        seconds = {name: lambda one=one: timed(one, prepared.device) for name, one in work.items()}
        for one in seconds.values():
            one()  # warms up
        found = {name: min(times) for name, times in in_turn(seconds, rounds).items()}
    size, piece = batch.number.shape[0], pieces[0].number.shape[0]
    each = {name: second / size for name, second in found.items()}
    rest = max(each["step"] - each["teacher"] - each["student"], 0.0)
    share = [found[name] / piece if name in found else 0.0 for name in ("keep", "read")]
    return Costs(each["data"], each["teacher"], each["student"], rest, *share)


def backward(prepared: Prepared, batch: Batch, answers: dict[Ask, Tokens]) -> None:
    """Forward and backward of the student, the teachers having answered."""
    enabled = prepared.recipe.precision == "bf16"
    with torch.autocast(prepared.device.type, torch.bfloat16, enabled=enabled):
        represented = prepared.objective.represent(batch, answers)
    prepared.objective.score(represented).total.backward()


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that some work takes, to the end of it on the device."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _step(prepared: Prepared, batch: Batch) -> None:
    prepared.optimisers.set_lr(prepared.recipe.schedule, 0, prepared.total)
    prepared.step(batch, 0, prepared.total)


def _keeping(prepared: Prepared, answers: dict[Ask, Tokens], folder: Path) -> dict[str, Callable[[], None]]:
    """Putting answers into a ring, and taking them out."""
    if not answers:
        return {}
    rows = {ask: rows_of(tokens) for ask, tokens in answers.items()}
    shapes = {ask: Answered(tokens.grid, tokens.rows.shape[-1]) for ask, tokens in answers.items()}
    count = next(iter(rows.values())).shape[0]
    rings = {ask: Ring(folder / f"{number}.ring", shapes[ask].size(CODEC), count) for number, ask in enumerate(answers)}
    place, key = torch.arange(count), torch.ones(count, 2, dtype=torch.long)

    def keep() -> None:
        for ask, one in rows.items():
            rings[ask].write(place, key, encode(one, CODEC).cpu())

    def read() -> None:
        for ask, shape in shapes.items():
            decode(rings[ask].read(place, key).records.to(prepared.device), shape.rows, shape.width, CODEC)

    return {"keep": keep, "read": read}
