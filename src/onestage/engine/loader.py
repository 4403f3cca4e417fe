"""From a source to batches: samples, geometry and hidden cells, all functions of (seed, global number) alone.

A worker makes whole batches, so one tensor per view crosses between processes. The loader's state is the number of
the next step; nothing else has to be remembered to go on.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from onestage.data import Draw, Mixed, Quarantine, first_good, generator, parts_of, stream_of
from onestage.data.decode import Pixels, Stored
from onestage.data.fast import Decoder, decode
from onestage.engine.texts import ShortFirst, choose, in_turn
from onestage.engine.together import together
from onestage.objective import Method
from onestage.roles import BadSample, Hide, HideLater, Sample, Source
from onestage.spec import UserError
from onestage.teachers.serving import Fresh, Marked, Planning, Shown, picture_digest
from onestage.types import Batch, Geometry, Grid, Mark, View, Words

GRACE = 30

Tokenize = Callable[[Sequence[str]], Words]


class Drawn(NamedTuple):
    """One sample of a batch: its views as uint8 pixels with box and flip, its hidden cells, text, label, and where the
    teachers' answers for its views are kept. In a mixture, its source may have no texts or no labels: then there is no
    text, or the label is -1."""

    views: dict[str, tuple[Tensor, tuple[int, int, int, int], bool]]
    hidden: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    text: str | None
    label: int
    marks: dict[str, Marked]


@final
class Batches(Dataset[Batch]):
    """Batch number `step` of a method over a source, or one rank's slice of it.

    Args:
        grids: the grid of every trained encoder, for the inputs that hide.
        tokenize: texts to words; None where the method needs no texts, and then none is ever drawn.
        texts: which of a sample's texts is read; None reads all of them alike.
        total: steps of the whole run.
        rank, world: which of so many equal slices of every batch is made; by default the whole of it. Slices make up
            the batch in their order, so what is read does not depend on how many there are.
        decoder: what decodes JPEGs.
        planning: where the geometry of the views that teachers see comes from.
        masks: how many samples after one another are one view with other hidden cells.
    """

    def __init__(
        self,
        source: Source,
        method: Method,
        grids: dict[str, Grid],
        batch: int,
        seed: int,
        tokenize: Tokenize | None,
        quarantine: Quarantine,
        texts: ShortFirst | None,
        total: int,
        rank: int = 0,
        world: int = 1,
        decoder: Decoder = "pillow",
        planning: Planning | None = None,
        masks: int = 1,
    ) -> None:
        self.decoder: Decoder = decoder
        self.planning, self.masks = planning or Fresh(), masks
        self.rank, self.share = rank, batch // world
        self.source, self.method, self.grids = source, method, grids
        self.batch, self.seed, self.tokenize = batch, seed, tokenize
        self.quarantine, self.texts, self.samples = quarantine, texts, total * batch
        self.parts, self.stream = parts_of(source), stream_of(source, seed, batch // masks)
        self.before = list(accumulate(map(len, self.parts), initial=0))
        # Of a mixture, whose other parts have them, a part may lack texts or labels; a whole source may not.
        self.with_texts = [part.has_texts or not source.has_texts for part in self.parts]
        self.with_labels = [part.has_labels or not source.has_labels for part in self.parts]

    @property
    def captioned(self) -> int:
        """Samples of a batch whose source has texts."""
        counts = self.stream.counts if isinstance(self.stream, Mixed) else [self.batch // self.masks]
        return self.masks * sum(count for count, texts in zip(counts, self.with_texts, strict=True) if texts)

    def __getitem__(self, step: int) -> Batch:
        first = step * self.batch + self.rank * self.share
        numbers = range(first, first + self.share)
        return self._collate(numbers, [self.draw(number) for number in numbers])

    def draw(self, number: int) -> Drawn:
        """Sample `number` of the stream, replaced by another where it is damaged."""
        drawn = self.stream.at(number // self.masks)._replace(number=number)
        part = self.parts[drawn.part]
        return first_good(
            part,
            drawn.sample,
            self.seed,
            lambda sample: self._use(sample, drawn, part),
            self.quarantine,
        )

    def _use(self, sample: Sample, draw: Draw, part: Source) -> Drawn:
        """One sample's views, hidden cells, text and label. May raise `BadSample`."""

        def random(purpose: str, epoch: int = draw.epoch) -> np.random.Generator:
            return generator(self.seed, part.name, sample.key, epoch, purpose)

        reads = self.tokenize is not None and self.with_texts[draw.part]
        if reads and not sample.texts:
            raise BadSample("it has no text")
        if self.method.needs_labels and self.with_labels[draw.part] and sample.label is None:
            raise BadSample("it has no label")
        views, marks = self._views(sample, draw, random)
        progress = draw.number / self.samples
        text = None
        if reads and part.reads == "all":
            text = in_turn(sample.texts, int(random("first text", 0).integers(1 << 32)), draw.epoch)
        elif reads:
            text = choose(sample.texts, random("text"), self.texts, progress)
        label = -1 if sample.label is None else sample.label
        copy = draw.number % self.masks
        return Drawn(views, self._hide(random, copy), self._noise(random, copy), text, label, marks)

    def _views(
        self, sample: Sample, draw: Draw, random: Callable[[str, int], np.random.Generator]
    ) -> tuple[dict[str, tuple[Tensor, tuple[int, int, int, int], bool]], dict[str, Marked]]:
        """A sample's views, and where the answers for them are kept."""
        picture = sample.picture
        shown = Shown(self.before[draw.part] + draw.sample, draw.epoch, picture.size)
        if self.planning.kept:
            picture = picture if isinstance(picture, Stored) else Pixels(picture.decode())
            content = picture.encoded() if isinstance(picture, Stored) else picture.pixels
            shown = shown._replace(picture=picture_digest(content))
        marked = self.planning.plans(self.method.views, random, shown)
        plans = {name: one.plan for name, one in marked.items()}
        pixels, scale = decode(picture, self.decoder, min(plan.shrink for plan in plans.values()))
        if scale != 1:
            plans = {name: replace(plan, scale=scale) for name, plan in plans.items()}
        views = {
            name: (self.method.views[name].apply(pixels, plan), plan.box, plan.flip) for name, plan in plans.items()
        }
        return views, {name: one for name, one in marked.items() if one.place is not None}

    def _hide(self, random: Callable[[str], np.random.Generator], copy: int) -> dict[str, np.ndarray]:
        """The hidden cells of every input; those of copy 0 of a view are what they are where it has no copies."""
        hides = {
            f"{name}/{key}": (part.hide, asked.encoder)
            for name, asked in self.method.inputs.items()
            for key, part in asked.parts.items()
        }
        hides |= {name: (asked.mix, asked.encoder) for name, asked in self.method.inputs.items()}
        again = f"/{copy}" if copy else ""
        return {
            key: hide.draw(random(f"hide/{key}{again}"), self.grids[encoder])
            for key, (hide, encoder) in hides.items()
            if isinstance(hide, Hide)
        }

    def _noise(self, random: Callable[[str], np.random.Generator], copy: int) -> dict[str, np.ndarray]:
        """What hiding that waits for a teacher's answer draws by."""
        again = f"/{copy}" if copy else ""
        return {
            f"{name}/{key}": part.hide.noise(random(f"hide/{name}/{key}{again}"), self.grids[asked.encoder])
            for name, asked in self.method.inputs.items()
            for key, part in asked.parts.items()
            if isinstance(part.hide, HideLater)
        }

    def _collate(self, numbers: range, drawn: list[Drawn]) -> Batch:
        views = {}
        for name in self.method.views:
            pixels, boxes, flips = zip(*(one.views[name] for one in drawn), strict=True)
            geometry = Geometry(torch.tensor(boxes, dtype=torch.float32), torch.tensor(flips))
            # Views lie channels last: made contiguous one by one, while they are small, they are stacked sooner. In a
            # loading process they are put where the training process sees them, so that nothing is copied again.
            views[name] = View(default_collate([one.contiguous() for one in pixels]), geometry)
        hidden = {name: torch.from_numpy(np.stack([one.hidden[name] for one in drawn])) for name in drawn[0].hidden}
        noise = {name: torch.from_numpy(np.stack([one.noise[name] for one in drawn])) for name in drawn[0].noise}
        words = self._words(numbers, [one.text for one in drawn])
        label = torch.tensor([one.label for one in drawn]) if self.method.needs_labels else None
        labelled = None if label is None or all(self.with_labels) else label >= 0
        return Batch(
            torch.tensor(list(numbers)), views, hidden, words, label, labelled, _marks(drawn), self.masks, noise
        )

    def _words(self, numbers: range, texts: Sequence[str | None]) -> Words | None:
        """The texts as words; a missing one is empty, not given, and equal to no other."""
        if self.tokenize is None:
            return None
        words = self.tokenize([text or "" for text in texts])
        if all(self.with_texts):
            return words
        given = torch.tensor([text is not None for text in texts])
        own = -1 - torch.tensor(list(numbers), dtype=words.text_id.dtype)  # identities of texts are not negative
        return Words(words.ids, torch.where(given, words.text_id, own), given)


def _marks(drawn: list[Drawn]) -> dict[str, Mark] | None:
    """Where the answers for the views of a batch are kept."""
    names = drawn[0].marks
    if not names:
        return None
    return {
        name: Mark(
            torch.tensor([one.marks[name].place for one in drawn]), torch.tensor([one.marks[name].key for one in drawn])
        )
        for name in names
    }


def batches(data: Batches, start: int, steps: int, workers: int) -> Generator[Batch, None, None]:
    """Batches `start` to `steps` in order; pixels are uint8 until `on_device`. Closing it ends the workers.

    Raises:
        UserError: when the data cannot be used, as the loading process put it; on all ranks, if on any.
    """
    loader = DataLoader(
        _Told(data),
        batch_size=None,
        sampler=range(start, steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_settle if workers else None,
    )
    for made in loader:
        yield together(partial(_sound, made))


def _sound(made: Batch | UserError) -> Batch:
    if isinstance(made, UserError):
        raise made
    return made


@final
class _Told(Dataset["Batch | UserError"]):
    """Batches, or what is wrong with the data: raised in a worker, it would arrive wrapped in a traceback."""

    def __init__(self, data: Batches) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.data[step]
        except UserError as error:
            return error


def check_slices(batch: int, world: int, accumulate: int) -> None:
    """Every rank must get an equal slice of a batch, of whole pairs of partners (numbers i and i xor 1), in pieces.

    Raises:
        UserError: with the nearest batches that fit.
    """
    unit = world * math.lcm(2, accumulate) if world > 1 else accumulate
    if batch % unit:
        near = sorted({max(batch // unit, 1) * unit, (batch // unit + 1) * unit})
        pieces = f", each in {accumulate} equal pieces" if accumulate > 1 else ""
        raise UserError(
            f"batch: {batch} cannot be shared by {world} processes in equal slices of whole pairs{pieces}; use "
            f"{' or '.join(map(str, near))} (the batch of all processes together), or another number of processes"
        )


def _settle(worker: int) -> None:
    """A worker decodes on one thread, since more would fight with the training process. SIGTERM to a whole group must
    not end it before that process has saved the run, so it goes on for `GRACE` seconds; Ctrl-C is that process's."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
