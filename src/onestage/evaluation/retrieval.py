"""Zero-shot retrieval between images and captions: recall at K by counting ranks, both ways.

A query is a hit at K when fewer than K wrong candidates are at least as similar as its best right one. A tie
counts against the model, so that a model that answers every query alike gets nothing. Captions that are equal
as strings are one caption of several images, and any of those images is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from onestage.evaluation.features import Pool, Positive, embed_texts, features, pick
from onestage.evaluation.zero_shot import need_joint
from onestage.roles import Evaluator, Source, Teacher
from onestage.spec import UserError, spec

CUTS = (1, 5, 10)
ELEMENTS = 1 << 24
"""Similarities held at once."""


class Pairs(NamedTuple):
    """Which caption belongs to which image. `texts` are distinct; `repeats` says how often each occurs."""

    texts: tuple[str, ...]
    repeats: Int[Tensor, " t"]
    of_image: list[list[int]]
    """The captions of each image, by number, distinct."""
    of_text: list[list[int]]
    """The images of each caption, by number, distinct."""


@final
@spec
class Retrieval(Evaluator):
    """Captions find their image and images their captions: recall at 1, 5 and 10.

    Metrics: `text_to_image_r1` ... `image_to_text_r10`, the same with `chance_` in front for a model that scores
    at random, `captions`, `samples` (images), `skipped`. Every caption is a query, and a candidate, as often as it
    occurs.
    """

    captions: Positive | None = None
    """At most so many captions an image (published COCO figures often keep five)."""
    pool: Pool = "cls"
    batch: Positive = 64
    limit: Positive | None = None
    """At most so many images, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model; `train` is not used.

        Raises:
            UserError: for a model without texts, or data without captions.
        """
        need_joint(model, "retrieval")
        found = features(model, data, "joint", self.pool, batch=self.batch, limit=self.limit)
        with_texts = [number for number, texts in enumerate(found.texts) if texts]
        if not with_texts:
            raise UserError(
                f"{data.name}: has no usable image with a caption; add metadata.jsonl with file_name and text"
            )
        found = pick(found, torch.tensor(with_texts))
        pairs = pair([texts[: self.captions] for texts in found.texts])
        images, texts = functional.normalize(found.rows, dim=-1), embed_texts(model, pairs.texts)
        counts = {
            "captions": float(pairs.repeats.sum()),
            "samples": float(len(found.keys)),
            "skipped": float(found.skipped),
        }
        return recalls(images, texts, pairs) | counts


def pair(captions: Sequence[Sequence[str]]) -> Pairs:
    """Join equal captions. `captions` are those of each image."""
    number: dict[str, int] = {}
    for texts in captions:
        for text in texts:
            number.setdefault(text, len(number))
    repeats = torch.zeros(len(number), dtype=torch.int64)
    of_image = [list(dict.fromkeys(number[text] for text in texts)) for texts in captions]
    of_text: list[list[int]] = [[] for _ in number]
    for image, texts in enumerate(captions):
        for text in texts:
            repeats[number[text]] += 1
        for text in of_image[image]:
            of_text[text].append(image)
    return Pairs(tuple(number), repeats, of_image, of_text)


def recalls(images: Float[Tensor, "n d"], texts: Float[Tensor, "t d"], pairs: Pairs) -> dict[str, float]:
    """Recall at each cut both ways, with that of scores at random. Rows are L2-normalised."""
    one = torch.ones(len(images), dtype=torch.int64)
    ways = {
        "text_to_image": (ranks(texts, images, pairs.of_text, one), pairs.of_text, one, pairs.repeats),
        "image_to_text": (
            ranks(images, texts, pairs.of_image, pairs.repeats),
            pairs.of_image,
            pairs.repeats,
            one,
        ),
    }
    found: dict[str, float] = {}
    chances: dict[str, float] = {}
    for way, (place, right, repeats, queries) in ways.items():
        total, luck = queries.sum().double(), Luck(repeats.tolist())
        for cut in CUTS:
            found[f"{way}_r{cut}"] = ((place < cut) * queries).sum().div(total).item()
            lucky = torch.tensor([luck(numbers, cut) for numbers in right], dtype=torch.float64)
            chances[f"chance_{way}_r{cut}"] = (lucky * queries).sum().div(total).item()
    return found | chances


def ranks(
    queries: Float[Tensor, "q d"],
    candidates: Float[Tensor, "k d"],
    right: Sequence[Sequence[int]],
    repeats: Int[Tensor, " k"],
) -> Int[Tensor, " q"]:
    """How many wrong candidates are at least as similar to each query as its best right one.

    Args:
        right: the right candidates of each query, by number; at least one.
        repeats: how often each candidate counts.
    """
    step = max(ELEMENTS // len(candidates), 1)
    found = []
    for start in range(0, len(queries), step):
        similar = queries[start : start + step] @ candidates.T
        gold = _mask(right[start : start + step], len(candidates))
        best = similar.masked_fill(~gold, -torch.inf).amax(dim=1, keepdim=True)
        # Written with `not <`, so that a similarity that is not a number counts against the model too.
        ahead = ~(similar < best) & ~gold
        found.append((ahead * repeats).sum(dim=1))
    return torch.cat(found)


@final
class Luck:
    """How often a model that scores at random is right. Equal captions get one score and come together, so that the
    repeats of one wrong caption can fill all places ahead.

    Args:
        repeats: how often each candidate counts.
    """

    def __init__(self, repeats: Sequence[int]) -> None:
        self.repeats = repeats
        self.counted = Counter(repeats)
        self._known: dict[tuple[tuple[int, ...], int], float] = {}

    def __call__(self, right: Sequence[int], cut: int) -> float:
        """The probability that in a random order of the candidates, fewer than `cut` wrong ones, counted with their
        repeats, stand before the first of `right`."""
        asked = tuple(sorted(self.repeats[number] for number in right)), cut
        if asked not in self._known:
            wrong = self.counted - Counter(asked[0])
            self._known[asked] = _before(wrong, wrong.total() + len(right), cut)
        return self._known[asked]


def _before(wrong: Counter[int], candidates: int, cut: int) -> float:
    """The sum over n of: the first n of a random order are one of the sets of n wrong candidates whose repeats sum to
    less than `cut`, and the next is right. `wrong`: how many wrong candidates have each number of repeats."""
    sets = Counter({(0, 0): 1})  # by how many candidates and by the sum of their repeats
    for repeats, count in wrong.items():
        grown: Counter[tuple[int, int]] = Counter()
        for (size, total), ways in sets.items():
            for more in range(min(count, (cut - 1 - total) // repeats) + 1):
                grown[size + more, total + more * repeats] += ways * comb(count, more)
        sets = grown
    right = candidates - wrong.total()
    return sum(ways / comb(candidates, size) * right / (candidates - size) for (size, _), ways in sets.items())


def _mask(right: Sequence[Sequence[int]], width: int) -> Bool[Tensor, "q k"]:
    rows = torch.tensor([row for row, numbers in enumerate(right) for _ in numbers])
    columns = torch.tensor([number for numbers in right for number in numbers])
    mask = torch.zeros(len(right), width, dtype=torch.bool)
    mask[rows, columns] = True
    return mask
