"""Features of a source: every sample once through a frozen model, in fp32, damaged samples counted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from onestage.layers.normalise import in_unit
from onestage.roles import BadSample, Sample, Source, Space, Teacher
from onestage.spec import UserError
from onestage.types import Tokens
from onestage.views import Frames, Resize

Pool = Literal["cls", "mean"]
"""`cls`: the pooled row (the class token where the encoder has one); `mean`: the mean of the patch rows."""
Positive = Annotated[int, Field(gt=0)]
T = TypeVar("T")

TEXTS = 256
"""Texts encoded at once."""
THREADS = min(4, os.cpu_count() or 1)
"""Threads that decode; the decoders release the interpreter's lock."""


class Features(NamedTuple):
    """One row a usable sample, in the source's order, on the CPU. A label is -1 where the sample has none."""

    rows: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    texts: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    skipped: int
    """Samples that could not be used."""


class Seen(NamedTuple):
    """A sample and its evaluation view."""

    sample: Sample
    pixels: UInt8[Tensor, "3 h w"]


@torch.no_grad()
def features(
    model: Teacher,
    source: Source,
    space: Space,
    pool: Pool | None,
    limit: int | None = None,
    *,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of a source under the evaluation view (shortest side to the model's size, centred square; of a clip, for
    a model that looks at clips, frames at even distances).

    Args:
        pool: the model's own where there is none.
        limit: at most so many samples, spread evenly over the source (folders are sorted by class).
        batch: images encoded at once.
        progress: called after each batch with the samples done and their total.

    Returns:
        Rows as the model gives them, not normalised. Without a usable sample they have the shape (0, 0).
    """

    def encode(pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return pooled(model.tokens(pixels, space), pool or model.pool)

    return answers(model, source, encode, limit, batch=batch, progress=progress)


@torch.no_grad()
def answers(
    model: Teacher,
    source: Source,
    answer: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]],
    limit: int | None = None,
    *,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """As `features`, the rows being whatever `answer` says of a batch of images in [0, 1] of the model's size."""
    chosen = spread(len(source), limit)
    device = device_of(model)
    view = view_of(model)
    rows: list[Tensor] = []
    used: list[tuple[str, tuple[str, ...], int]] = []
    done = 0
    for read in batches(source, chosen, lambda sample: see(sample, view), batch):
        seen = [item for item in read if not isinstance(item, BadSample)]
        if seen:
            pixels = torch.stack([item.pixels for item in seen]).to(device)
            rows.append(answer(in_unit(pixels)).float().cpu())
        used += [(item.sample.key, item.sample.texts, _label(item.sample)) for item in seen]
        done += len(read)
        if progress is not None:
            progress(done, len(chosen))
    return Features(
        rows=torch.cat(rows) if rows else torch.zeros(0, 0),
        labels=torch.tensor([label for _, _, label in used], dtype=torch.int64),
        texts=tuple(texts for _, texts, _ in used),
        keys=tuple(key for key, _, _ in used),
        skipped=len(chosen) - len(used),
    )


@torch.no_grad()
def embed_texts(model: Teacher, texts: Sequence[str]) -> Float[Tensor, "k d"]:
    """L2-normalised embeddings of texts in the joint space, fp32, on the CPU."""
    pieces = [model.text(texts[start : start + TEXTS]).float().cpu() for start in range(0, len(texts), TEXTS)]
    return torch.nn.functional.normalize(torch.cat(pieces), dim=-1)


def labelled(found: Features, name: str) -> Features:
    """The samples that have a label; the others are counted as skipped.

    Args:
        name: of the source, for the message.

    Raises:
        UserError: when none is left.
    """
    if not found.keys:
        raise UserError(f"{name}: none of its {found.skipped} samples can be decoded; look at the files")
    keep = (found.labels >= 0).nonzero().flatten()
    if len(keep) == 0:
        raise UserError(f"{name}: no sample has a label; use class folders, or label in the metadata")
    return pick(found, keep)


def pick(found: Features, keep: Int[Tensor, " m"]) -> Features:
    """Some of the samples, by number; the others are counted as skipped."""
    numbers = keep.tolist()
    return Features(
        rows=found.rows[keep],
        labels=found.labels[keep],
        texts=tuple(found.texts[number] for number in numbers),
        keys=tuple(found.keys[number] for number in numbers),
        skipped=found.skipped + len(found.keys) - len(numbers),
    )


def pooled(tokens: Tokens, pool: Pool) -> Float[Tensor, "b d"]:
    """One row an image."""
    return tokens.pooled if pool == "cls" else tokens.rows.mean(dim=1)


def spread(count: int, limit: int | None) -> Sequence[int]:
    """Numbers below `count`: all of them, or `limit` of them at even distances."""
    if limit is None or limit >= count:
        return range(count)
    return [number * count // limit for number in range(limit)]


def device_of(model: Teacher) -> torch.device:
    """Where a model computes."""
    return next((item.device for part in model.parts() for item in part.parameters()), torch.device("cpu"))


def batches(
    source: Source, chosen: Sequence[int], use: Callable[[Sample], T], batch: int
) -> Iterator[list[T | BadSample]]:
    """What `use` makes of the chosen samples, in order and in batches; the reason for one that cannot be used.

    While the model is busy with a batch, the next is decoded. The source is read by this thread alone; only
    pictures are decoded by others.
    """
    ahead: deque[list[Future[T | BadSample]]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(chosen), batch):
            samples = [_read(source, index) for index in chosen[start : start + batch]]
            ahead.append([threads.submit(_used, sample, use) for sample in samples])
            if len(ahead) > 1:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]


def see(sample: Sample, view: Resize) -> Seen:
    """A sample under the evaluation view.

    Raises:
        BadSample: when it does not decode.
    """
    draw = np.random.default_rng(0)
    if sample.clip is None or view.frames is None:
        still = view.resized(sample.picture.decode(), view.plan(draw, *sample.picture.size))
        return Seen(sample, still if view.frames is None else torch.cat([still] * view.frames.count, dim=1))
    plan = view.plan(draw, *sample.clip.size)
    frames = sample.clip.decode(view.frames.times(plan.moment, *sample.clip.span()))
    return Seen(sample, torch.cat([view.resized(frame, plan) for frame in frames], dim=1))


def view_of(model: Teacher) -> Resize:
    """The evaluation view of a model."""
    return Resize(size=model.size, frames=None if model.frames == 1 else Frames(count=model.frames))


def _read(source: Source, index: int) -> Sample | BadSample:
    try:
        return source[index]
    except BadSample as error:
        return error


def _used(sample: Sample | BadSample, use: Callable[[Sample], T]) -> T | BadSample:
    if isinstance(sample, BadSample):
        return sample
    try:
        return use(sample)
    except BadSample as error:
        return error


def _label(sample: Sample) -> int:
    return -1 if sample.label is None else sample.label
