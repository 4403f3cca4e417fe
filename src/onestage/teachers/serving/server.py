"""What answers for the frozen encoders during a step: the teachers themselves, or what is kept of their answers.

A kept answer has gone through its codec once, also in the step that it is made in: so what a step learns from depends
on its views alone, not on what happened to be kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from onestage.objective import Ask
from onestage.ops import place_of
from onestage.teachers.serving.codec import Answered, Codec, decode, encode
from onestage.teachers.serving.live import Portions, each
from onestage.teachers.serving.ring import Ring
from onestage.teachers.serving.store import Store
from onestage.types import Batch, Images, Mark, Tokens, Words


class Server(ABC):
    """Answers for the views of a batch."""

    def __call__(self, ask: Ask, batch: Batch) -> Tokens:
        """A frozen teacher's tokens, one answer for each sample, on the batch's device."""
        if ask.view == "text":
            assert batch.words is not None, "the loader checks that texts are there"
            return self.told(ask, batch.words)
        view = batch.views[ask.view]
        once = self.answer(ask, view.pixels[:: batch.copies], batch)
        spread = once if batch.copies == 1 else each(once, lambda tensor: tensor.repeat_interleave(batch.copies, 0))
        return spread._replace(geometry=view.geometry)

    @abstractmethod
    def answer(self, ask: Ask, pixels: Images, batch: Batch) -> Tokens:
        """Tokens of every view, each once."""

    @abstractmethod
    def told(self, ask: Ask, words: Words) -> Tokens:
        """Tokens of every text. What is kept are answers for pictures: words are cheap, and answered afresh."""

    @abstractmethod
    def open(self) -> None:
        """Make room for what is kept, before the first step.

        Raises:
            UserError: when the disk has none.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove what was kept for this run alone."""


@final
class LiveServer(Server):
    """The teachers themselves."""

    def __init__(self, teachers: Portions) -> None:
        self.teachers = teachers

    def answer(self, ask: Ask, pixels: Images, batch: Batch) -> Tokens:
        return self.teachers.tokens(ask, pixels)

    def told(self, ask: Ask, words: Words) -> Tokens:
        return self.teachers.words(ask, words)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


@final
class ReplayServer(Server):
    """Answers of a ring; teachers are asked for what it does not have.

    Args:
        answered: the shape of each answer.
        open_ring: opens the ring of a question for records of so many bytes, when it is first asked.
    """

    def __init__(
        self,
        teachers: Portions,
        answered: dict[Ask, Answered],
        codec: Codec,
        open_ring: Callable[[Ask, int], Ring],
    ) -> None:
        self.codec: Codec = codec
        self.teachers, self.answered, self.open_ring = teachers, answered, open_ring
        self.rings: dict[Ask, Ring] = {}
        self.asked = self.made = 0

    def answer(self, ask: Ask, pixels: Images, batch: Batch) -> Tokens:
        if batch.marks is None:  # validation: views that are not the run's own
            return self.teachers.tokens(ask, pixels)
        ring, shape, mark = self._ring(ask), self.answered[ask], marks(ask, batch.marks, batch.copies)
        records, found = ring.read(*mark)
        missing = ~found
        if bool(missing.any()):
            made = self._encoded(ask, pixels[missing.to(pixels.device)])
            records[missing] = made
            ring.write(mark.place[missing], mark.key[missing], made)
        self.asked += len(found)
        self.made += int(missing.sum())
        return tokens_of(records.to(pixels.device, non_blocking=True), shape, self.codec)

    def told(self, ask: Ask, words: Words) -> Tokens:
        return self.teachers.words(ask, words)

    def open(self) -> None:
        for ask in self.answered:
            self._ring(ask)

    def close(self) -> None:
        for ring in self.rings.values():
            ring.remove()

    def _ring(self, ask: Ask) -> Ring:
        if ask not in self.rings:
            self.rings[ask] = self.open_ring(ask, self.answered[ask].size(self.codec))
        return self.rings[ask]

    def _encoded(self, ask: Ask, pixels: Images) -> UInt8[Tensor, "v bytes"]:
        return encode(rows_of(self.teachers.tokens(ask, pixels)), self.codec).cpu()


def marks(ask: Ask, given: dict[str, Mark], copies: int) -> Mark:
    """Where the answers for the views of a batch are kept, each view once."""
    place, key = given[ask.view]
    return Mark(place[::copies], key[::copies])


def rows_of(tokens: Tokens) -> Float[Tensor, "v t d"]:
    """All rows of tokens of a whole grid, the pooled one first."""
    return torch.cat([tokens.pooled.unsqueeze(1), tokens.rows], dim=1)


def tokens_of(records: UInt8[Tensor, "v bytes"], shape: Answered, codec: Codec) -> Tokens:
    """Records as tokens of a whole grid."""
    rows = decode(records, shape.rows, shape.width, codec)
    cells = torch.arange(shape.rows - 1, device=rows.device).expand(rows.shape[0], -1)
    return Tokens(rows[:, 1:], rows[:, 0], place_of(cells), shape.grid, geometry=None)


@final
class StoreServer(Server):
    """Answers of a store; teachers are asked about validation alone."""

    def __init__(self, teachers: Portions, store: Store) -> None:
        self.teachers, self.store = teachers, store
        self.questions = {one.ask: (number, one.shape) for number, one in enumerate(store.manifest.answers)}

    def answer(self, ask: Ask, pixels: Images, batch: Batch) -> Tokens:
        if batch.marks is None:
            return self.teachers.tokens(ask, pixels)
        number, shape = self.questions[ask]
        records = self.store.records(number, marks(ask, batch.marks, batch.copies), ask.view)
        return tokens_of(records.to(pixels.device, non_blocking=True), shape, self.store.manifest.codec)

    def told(self, ask: Ask, words: Words) -> Tokens:
        return self.teachers.words(ask, words)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass
