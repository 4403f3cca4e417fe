"""What a source holds: counts, keys, sizes, captions, repeats and classes, from some samples spread over it.

Pictures are read but not decoded: sizes come from their headers, and equal pictures are told by their bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from onestage.data.decode import Stored
from onestage.roles import BadSample, Sample, Source

SHOWN = 8
"""Classes, keys and faults that are named."""
WIDEST = 60
"""Letters of a caption that are shown."""


class Survey(NamedTuple):
    """What was seen of a source."""

    source: str
    samples: int
    looked: int
    """Samples that were looked at; all that follows is of them."""
    keys: tuple[str, ...]
    fields: dict[str, int]
    """How many have what: texts, label, boxes, ..."""
    sizes: np.ndarray
    """Width and height of each picture, int64 (n, 2)."""
    stored: np.ndarray
    """Bytes of each picture that is stored somewhere."""
    captions: np.ndarray
    """Texts of each sample."""
    same_texts: Counter[str]
    """Texts that come more than once, and how often."""
    same_pictures: tuple[tuple[str, ...], ...]
    """Keys of pictures whose bytes are equal."""
    classes: Counter[str]
    named: int
    """Classes that have a name, seen or not."""
    keeps_captions: frozenset[str]
    faults: tuple[tuple[str, str], ...]
    """Keys and reasons of what cannot be used."""


def spread(length: int, count: int) -> list[int]:
    """So many numbers below a length, evenly spread; all of them where there are no more."""
    return sorted({int(number) for number in np.linspace(0, length - 1, min(count, length)).round()})


def survey(source: Source, look: int) -> Survey:
    """Look at `look` samples that are spread over a source."""
    fields: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    digests: defaultdict[bytes, list[str]] = defaultdict(list)
    sizes, stored, captions = [], [], []
    keys, faults = [], []
    numbers = spread(len(source), look)
    for number in numbers:
        key = str(number)
        try:
            sample = source[number]
            key = sample.key
            content = sample.picture.encoded() if isinstance(sample.picture, Stored) else None
            sizes.append(sample.picture.size)
        except BadSample as error:
            faults.append((key, str(error)))
            continue
        keys.append(key)
        if content is not None:
            stored.append(len(content))
            digests[hashlib.blake2b(content, digest_size=16).digest()].append(key)
        fields.update(_present(sample))
        captions.append(len(sample.texts))
        texts.update(sample.texts)
        classes.update([] if sample.label is None else [source.classes[sample.label]])
    return Survey(
        source.name,
        len(source),
        len(numbers),
        tuple(keys[:SHOWN]),
        dict(fields),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(stored, np.int64),
        np.array(captions, np.int64),
        Counter({text: count for text, count in texts.items() if count > 1}),
        tuple(tuple(same) for same in digests.values() if len(same) > 1),
        classes,
        len(source.classes),
        source.keeps_captions,
        tuple(faults),
    )


def _present(sample: Sample) -> Iterator[str]:
    names = (field.name for field in dataclasses.fields(sample) if field.name not in ("key", "picture"))
    return (name for name in names if getattr(sample, name) not in (None, (), ""))


def lines(seen: Survey) -> Iterator[str]:
    """A survey for people."""
    good = len(seen.captions)
    which = "all of them looked at" if seen.looked == seen.samples else f"{seen.looked} of them looked at"
    yield f"{seen.source}: {seen.samples} samples, {which}"
    yield _line("keys", _listed(seen.keys, good))
    had = (f"{name} {100 * count / good:.3g} %" for name, count in seen.fields.items())
    yield _line("hold", ", ".join(["picture 100 %", *had]) if good else "nothing that can be used")
    if good:
        yield _line("sizes", _sizes(seen.sizes, seen.stored))
    if seen.captions.any():
        yield from _captions(seen)
    if seen.same_pictures:
        extra = sum(len(same) - 1 for same in seen.same_pictures)
        yield _line("equal", f"{extra} pictures repeat another one, such as {' = '.join(seen.same_pictures[0][:3])}")
    if seen.classes:
        named = [f"{name} {count}" for name, count in seen.classes.most_common(SHOWN)]
        count = f"{len(seen.classes)} of {seen.named}" if len(seen.classes) < seen.named else f"{seen.named}"
        yield _line("classes", f"{count}: {_listed(named, len(seen.classes))}")
    for key, reason in seen.faults[:SHOWN]:
        yield _line("bad", f"{key}: {reason}")
    if len(seen.faults) > SHOWN:
        yield _line("bad", f"and {len(seen.faults) - SHOWN} more")


def _captions(seen: Survey) -> Iterator[str]:
    counts = seen.captions
    each = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts.max()}"
    yield _line("captions", f"{counts.sum()}, {each} a sample (mean {counts.mean():.3g})")
    yield _line("", f"kept true by {', '.join(sorted(seen.keeps_captions)) or 'no augmentation'}")
    if seen.same_texts:
        text, often = seen.same_texts.most_common(1)[0]
        repeats = seen.same_texts.total() - len(seen.same_texts)
        yield _line("", f"{repeats} repeat another one; {often} times '{_short(text)}'")


def _sizes(sizes: np.ndarray, stored: np.ndarray) -> str:
    """From the smallest picture to the largest, the median of width and of height, and the bytes."""
    area = sizes.prod(1)
    least, most = sizes[area.argmin()], sizes[area.argmax()]
    middle = np.median(sizes, 0).astype(int)
    told = f"{least[0]} x {least[1]}"
    if (sizes != sizes[0]).any():
        told = f"{told} to {most[0]} x {most[1]}, median {middle[0]} x {middle[1]}"
    if not len(stored):
        return told
    return f"{told}; {np.median(stored) / 1e3:.3g} kB (median), {stored.max() / 1e3:.3g} kB at most"


def _line(name: str, told: str) -> str:
    return f"  {name:<10}{told}"


def _listed(names: Iterable[str], of: int) -> str:
    shown: Sequence[str] = list(names)[:SHOWN]
    return ", ".join([*shown, "..."] if of > len(shown) else shown)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
