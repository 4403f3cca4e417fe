"""Mixtures of sources, `0.7*SRC+0.3*SRC`: every step holds the same number of samples of each.

Of a global batch, pairs of partners (numbers i and i xor 1) are given to the sources by their weights (largest
remainder), and spread evenly over the batch. Each source has a stream and epochs of its own. So which sample stands at
a number is a function of (seed, batch, number) alone, as in a single source.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import final

from onestage.data.stream import Draw, Stream
from onestage.sample import Sample, Source, describe_as
from onestage.spec import UserError

_WEIGHT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\*")
_NEXT = re.compile(r"\+(?=(?:\d+(?:\.\d*)?|\.\d+)\*)")


@final
class Part(Source):
    """A source inside a mixture: its labels are numbers of the mixture's classes."""

    def __init__(self, source: Source, classes: tuple[str, ...]) -> None:
        self.source, self.name = source, source.name
        describe_as(self, source)
        self.classes = classes
        known = {name: number for number, name in enumerate(classes)}
        self._number = tuple(known[name] for name in source.classes)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        if sample.label is None or self._number[sample.label] == sample.label:
            return sample
        return dataclasses.replace(sample, label=self._number[sample.label])

    def fingerprint(self) -> str:
        """Its source's."""
        return self.source.fingerprint()


@final
class Mixture(Source):
    """Several sources with weights. Its samples by index are those of its parts, one part after the other.

    Labels are renumbered by the names of all classes. Classes of masks and boxes, points and verdicts are not: the
    mixture has those that all parts with any agree on, and none where they differ.
    """

    def __init__(self, name: str, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self.name, self.weights = name, tuple(weights)
        self.classes = _union(sources)
        self.parts = tuple(Part(source, self.classes) for source in sources)
        self.has_texts = any(part.has_texts for part in self.parts)
        self.has_labels = any(part.has_labels for part in self.parts)
        self.has_questions = any(part.has_questions for part in self.parts)
        self.has_clips = any(part.has_clips for part in self.parts)
        self.mask_classes = _agreed(part.mask_classes for part in self.parts)
        self.has_masks = len({part.mask_classes for part in self.parts if part.has_masks}) == 1
        self.box_classes = _agreed(part.box_classes for part in self.parts)
        self.keypoints = _agreed(part.keypoints for part in self.parts)
        self.verdicts = _agreed(part.verdicts for part in self.parts)
        captioned = [part.keeps_captions for part in self.parts if part.has_texts] or [
            part.keeps_captions for part in self.parts
        ]
        self.keeps_captions = frozenset.intersection(*captioned)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Sample:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def fingerprint(self) -> str:
        """Changes when a part or a weight does."""
        told = "\n".join(
            f"{weight!r} {part.fingerprint()}" for weight, part in zip(self.weights, self.parts, strict=True)
        )
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@final
class Mixed:
    """The stream of a mixture.

    Args:
        batch: samples of a step, of all ranks together.

    Raises:
        UserError: when the batch is too small to hold every source.
    """

    def __init__(self, seed: int, mixture: Mixture, batch: int) -> None:
        self.batch = batch
        self.counts, self.slots = composition(mixture.weights, batch)
        if min(self.counts) == 0:
            rare = mixture.parts[self.counts.index(0)].name
            raise UserError(
                f"{mixture.name}: a batch of {batch} has no pair for {rare}; use a larger batch, or a greater weight"
            )
        self.streams = tuple(
            Stream(seed, len(part), f"order of part {number}") for number, part in enumerate(mixture.parts)
        )

    def at(self, number: int) -> Draw:
        """The draw at a global number."""
        step, slot = divmod(number, self.batch)
        part, place = self.slots[slot]
        drawn = self.streams[part].at(step * self.counts[part] + place)
        return drawn._replace(number=number, part=part)


def composition(weights: Sequence[float], batch: int) -> tuple[list[int], list[tuple[int, int]]]:
    """How many samples of a batch each source gives, and for every slot its source and the number among them."""
    total, pairs = sum(weights), -(-batch // 2)
    shares = [weight / total * pairs for weight in weights]
    given = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda part: (given[part] - shares[part], part))
    for part in by_remainder[: pairs - sum(given)]:
        given[part] += 1
    spread = sorted(((one + 0.5) / given[part], part) for part in range(len(weights)) for one in range(given[part]))
    counts, slots = [0] * len(weights), []
    for _, part in spread:
        for _ in range(min(2, batch - len(slots))):
            slots.append((part, counts[part]))
            counts[part] += 1
    return counts, slots


def stream_of(source: Source, seed: int, batch: int) -> Stream | Mixed:
    """The stream of any source, for steps of `batch` samples."""
    return Mixed(seed, source, batch) if isinstance(source, Mixture) else Stream(seed, len(source))


def parts_of(source: Source) -> tuple[Source, ...]:
    """What `Draw.part` and `Draw.sample` refer to."""
    return source.parts if isinstance(source, Mixture) else (source,)


def is_mixture(text: str) -> bool:
    """Whether what a user typed begins with a weight."""
    return _WEIGHT.match(text) is not None


def parse_mixture(text: str) -> tuple[list[float], list[str]]:
    """Weights and sources of `0.7*SRC+0.3*SRC`. Weights count in relation to one another.

    Raises:
        UserError: when a source or its weight is missing, or a weight is 0.
    """
    items = [_WEIGHT.match(item) for item in _NEXT.split(text)]
    weights = [float(item[1]) for item in items if item is not None]
    sources = [item.string[item.end() :] for item in items if item is not None]
    if len(weights) < len(items) or not all(sources) or min(weights) <= 0:
        raise UserError(f"'{text}': a mixture is sources with weights above 0, such as 0.7*pairs+0.3*photos")
    return weights, sources


def _agreed(named: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The names of all who have some, where they are the same."""
    found = {names for names in named if names}
    return found.pop() if len(found) == 1 else ()


def _union(sources: Sequence[Source]) -> tuple[str, ...]:
    """The classes of all sources by name, in the order in which they come."""
    return tuple(dict.fromkeys(name for source in sources for name in source.classes))
