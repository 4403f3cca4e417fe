"""From a source to batches: samples, geometry and hidden cells, all functions of (seed, global number) alone.

A worker makes whole batches, so one tensor per view crosses between processes. The loader's state is the number of
the next step; nothing else has to be remembered to go on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from onestage.data import Draw, Mixed, Mixture, Quarantine, first_good, generator, parts_of, stream_of
from onestage.data.decode import Pixels, Stored
from onestage.data.fast import Decoder
from onestage.engine.buffers import Places, Sent, Stack, received, sent
from onestage.engine.cut import cut
from onestage.engine.drawn import Begun, Drawn, blended, hidden_of, marks_of, noise_of
from onestage.engine.repeats import Repeats
from onestage.engine.slots import Lenders, Slots
from onestage.engine.texts import ShortFirst, choose, in_turn
from onestage.engine.together import together
from onestage.lent import Reused
from onestage.objective import Method
from onestage.objective.mix import partner
from onestage.roles import BadSample, Picture, Sample, Source
from onestage.spec import UserError
from onestage.teachers.serving import Fresh, Marked, Planning, Shown, picture_digest
from onestage.types import Batch, Grid, Words
from onestage.views import shape_of

GRACE = 30
AT_ONCE = 32
"""Samples that are read and planned before the first of them is decoded: what Python does for one and what the decoder
does for one throw each other out of the processor's caches, so each works on several."""

Tokenize = Callable[[Sequence[str]], Words]


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
        repeats: how many samples of a batch are one, each with views of its own.

    Raises:
        UserError: when repeats do not fit the batch.
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
        repeats: int = 1,
    ) -> None:
        self.repeats = Repeats(batch, repeats)
        if repeats > 1 and (masks > 1 or isinstance(source, Mixture) or (planning is not None and planning.kept)):
            raise UserError("repeats: every view is drawn anew, of one source, so nothing of it can be kept or shared")
        self.decoder: Decoder = decoder
        self.planning, self.masks = planning or Fresh(), masks
        self.memory, self.slots = Reused(), Slots()
        self.rank, self.share = rank, batch // world
        self.source, self.method, self.grids = source, method, grids
        self.batch, self.seed, self.tokenize = batch, seed, tokenize
        self.quarantine, self.texts, self.samples = quarantine, texts, total * batch
        self.parts, self.stream = parts_of(source), stream_of(source, seed, batch // masks)
        self.sizes = {name: shape_of(view) for name, view in method.views.items() if view.size is not None}
        self.of_clips = bool(method.views) and all(view.frames is not None for view in method.views.values())
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
        take = (self.memory if get_worker_info() is None else self.slots).take
        stack, drawn = Stack(self.share, self.sizes, take), []
        for at in range(0, self.share, AT_ONCE):
            group = numbers[at : at + AT_ONCE]
            for number, begun in zip(group, [self._begun(number) for number in group], strict=True):
                drawn.append(self._finished(number, begun, stack.places(len(drawn))))
        return self._collate(numbers, stack, drawn)

    def draw(self, number: int, places: Places) -> Drawn:
        """Sample `number` of the stream, replaced by another where it is damaged; its views are cut to `places`."""
        drawn = self._at(number)
        part = self.parts[drawn.part]
        return first_good(
            part,
            drawn.sample,
            self.seed,
            lambda sample: self._cut(self._begin(sample, drawn, part), places),
            self.quarantine,
        )

    def _at(self, number: int) -> Draw:
        return self.stream.at(self.repeats.entry(number)[0] // self.masks)._replace(number=number)

    def _begun(self, number: int) -> Begun | None:
        """Sample `number` of the stream, planned; None where it is damaged."""
        drawn = self._at(number)
        part = self.parts[drawn.part]
        try:
            return self._begin(part[drawn.sample], drawn, part)
        except BadSample:
            return None

    def _finished(self, number: int, begun: Begun | None, places: Places) -> Drawn:
        """What `draw` gives, of a sample that is planned already."""
        try:
            made = None if begun is None else self._cut(begun, places)
        except BadSample:
            made = None
        if made is None:
            return self.draw(number, places)  # it is asked again, written down, and replaced
        self.quarantine.passed()
        return made

    def _begin(self, sample: Sample, draw: Draw, part: Source) -> Begun:
        """One sample with its plans, hidden cells, text and label. May raise `BadSample`."""

        again = self.repeats.again(draw.number)

        def random(purpose: str, epoch: int = draw.epoch) -> np.random.Generator:
            return generator(self.seed, draw.part, sample.key, epoch, purpose + again)  # not where it lies: it may move

        reads = self.tokenize is not None and self.with_texts[draw.part]
        if reads and not sample.texts:
            raise BadSample("it has no text")
        if self.method.needs_labels and self.with_labels[draw.part] and sample.label is None:
            raise BadSample("it has no label")
        picture, plans = self._planned(sample, draw, random)
        progress = draw.number / self.samples
        text = None
        if reads and part.reads == "all":
            text = in_turn(sample.texts, int(random("first text", 0).integers(1 << 32)), draw.epoch)
        elif reads:
            text = choose(sample.texts, random("text"), self.texts, progress)
        label = -1 if sample.label is None else sample.label
        copy = draw.number % self.masks
        marks = {name: one for name, one in plans.items() if one.place is not None}
        made = Drawn(
            {name: one.plan for name, one in plans.items()},
            hidden_of(self.method, self.grids, random, copy),
            noise_of(self.method, self.grids, random, copy),
            text,
            label,
            marks,
        )
        return Begun(picture, sample.clip, made)

    def _planned(
        self, sample: Sample, draw: Draw, random: Callable[[str, int], np.random.Generator]
    ) -> tuple[Picture, dict[str, Marked]]:
        """A sample's picture, and its views to be."""
        picture = sample.picture
        size = sample.clip.size if self.of_clips and sample.clip is not None else picture.size
        shown = Shown(self.before[draw.part] + draw.sample, draw.epoch, size)
        if self.planning.kept:
            picture = picture if isinstance(picture, Stored) else Pixels(picture.decode())
            content = picture.encoded() if isinstance(picture, Stored) else picture.pixels
            shown = shown._replace(picture=picture_digest(content))
        return picture, self.planning.plans(self.method.views, random, shown)

    def _cut(self, begun: Begun, places: Places) -> Drawn:
        """Cut the views of a sample to their places; a method that learns from texts alone has none. May raise
        `BadSample`."""
        cut(begun.picture, begun.clip, self.method.views, begun.drawn.plans, places, self.decoder)
        return begun.drawn

    def _collate(self, numbers: range, stack: Stack, drawn: list[Drawn]) -> Batch:
        hidden = {name: torch.from_numpy(np.stack([one.hidden[name] for one in drawn])) for name in drawn[0].hidden}
        noise = {name: torch.from_numpy(np.stack([one.noise[name] for one in drawn])) for name in drawn[0].noise}
        words = self._words(numbers, [one.text for one in drawn])
        label = torch.tensor([one.label for one in drawn]) if self.method.needs_labels else None
        labelled = None if label is None or all(self.with_labels) else label >= 0
        views = stack.views([one.plans for one in drawn])
        blends = blended(self.method, views, label, partial(generator, self.seed, numbers.start // self.batch))
        if labelled is not None and blends:
            labelled = labelled & partner(labelled)
        return Batch(
            torch.tensor(list(numbers)),
            views,
            hidden,
            words,
            label,
            labelled,
            marks_of(drawn),
            self.masks,
            noise,
            blends,
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
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_settle if workers else None,
    )
    lenders = Lenders()
    for made in loader:
        yield together(partial(_sound, made, lenders))


def _as_it_is(made: Any) -> Any:
    return made


def _sound(made: Batch | Sent | UserError, lenders: Lenders) -> Batch:
    if isinstance(made, UserError):
        raise made
    return received(made, lenders) if isinstance(made, Sent) else made


@final
class _Told(Dataset["Batch | Sent | UserError"]):
    """Batches, or what is wrong with the data: raised in a worker, it would arrive wrapped in a traceback."""

    def __init__(self, data: Batches) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | Sent | UserError:
        try:
            made = self.data[step]
        except UserError as error:
            return error
        worker = get_worker_info()
        return made if worker is None else sent(made, self.data.slots, worker.id)


def _settle(worker: int) -> None:
    """A worker decodes on one thread, since more would fight with the training process. SIGTERM to a whole group must
    not end it before that process has saved the run, so it goes on for `GRACE` seconds; Ctrl-C is that process's."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
