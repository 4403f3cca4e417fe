"""Retrieval against brute force: repeated captions, several captions an image, ties."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from onestage.evaluation import Retrieval, retrieval
from onestage.evaluation.retrieval import Luck, pair, ranks, recalls
from onestage.ops import place_of
from onestage.roles import Picture, Sample, Source, Space, Teacher
from onestage.spec import UserError
from onestage.types import Tokens


@final
class Grey(Picture):
    """The number of an image, as its grey."""

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def size(self) -> tuple[int, int]:
        return 2, 2

    def decode(self) -> np.ndarray:
        return np.full((2, 2, 3), self.number, dtype=np.uint8)


@final
class Captioned(Source):
    name = "captioned"

    def __init__(self, captions: Sequence[tuple[str, ...]]) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Sample:
        return Sample(key=str(index), picture=Grey(index), texts=self.captions[index])

    def fingerprint(self) -> str:
        return self.name


@final
class Table(Teacher):
    """Embeddings by the number of an image and by the text."""

    def __init__(self, images: Tensor, words: dict[str, Tensor], has_joint: bool = True) -> None:
        self.reference, self.grid, self.size, self.licence, self.scale = "table", (1, 1), 2, "none", 100.0
        self.has_text, self.has_joint, self.templates, self.statistics = True, has_joint, (), "none"
        self.images, self.words = images, words

    def parts(self) -> tuple[nn.Module, ...]:
        return ()

    def width(self, space: Space) -> int:
        return self.images.shape[1]

    def tokens(self, pixels: Tensor, space: Space) -> Tokens:
        number = (pixels[:, 0, 0, 0] * 255).round().long()
        return Tokens(self.images[number][:, None], self.images[number], place_of(number[:, None] * 0), (1, 1), None)

    def text(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self.words[text] for text in texts])


def brute(images: np.ndarray, texts: dict[str, np.ndarray], captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every caption of every image is a query and a candidate; equal strings are right for one another's images."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / np.sqrt((a * a).sum()) / np.sqrt((b * b).sum()))

    flat = [(image, text) for image, own in enumerate(captions) for text in own]
    found: dict[str, float] = {}
    for cut in (1, 5, 10):
        hits = []
        for _, text in flat:
            right = [text in own for own in captions]
            scores = [cosine(image, texts[text]) for image in images]
            best = max(score for score, good in zip(scores, right, strict=True) if good)
            hits.append(sum(s >= best and not good for s, good in zip(scores, right, strict=True)) < cut)
        found[f"text_to_image_r{cut}"] = sum(hits) / len(hits)
        hits = []
        for image, own in enumerate(captions):
            right = [text in own for _, text in flat]
            scores = [cosine(images[image], texts[text]) for _, text in flat]
            best = max(score for score, good in zip(scores, right, strict=True) if good)
            hits.append(sum(s >= best and not good for s, good in zip(scores, right, strict=True)) < cut)
        found[f"image_to_text_r{cut}"] = sum(hits) / len(hits)
    return found


def made(seed: int) -> tuple[Table, list[tuple[str, ...]]]:
    """Forty images, one to three captions each, of which many are shared and some stand twice under one image."""
    draw = np.random.default_rng(seed)
    pool = [f"text {number}" for number in range(30)]
    captions = [tuple(str(text) for text in draw.choice(pool, draw.integers(1, 4))) for _ in range(40)]
    images = torch.from_numpy(draw.normal(size=(40, 8))).float()
    words = {text: torch.from_numpy(draw.normal(size=8)).float() for text in pool}
    for image, own in enumerate(captions):
        words[own[0]] = words[own[0]] + images[image]
    return Table(images, words), captions


@pytest.mark.parametrize("elements", [1 << 24, 90])
def test_against_brute_force_with_repeated_captions(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "ELEMENTS", elements)
    for seed in range(3):
        model, captions = made(seed)
        got = Retrieval(batch=16).run(model, Captioned(captions), None)
        texts = {text: row.double().numpy() for text, row in model.words.items()}
        wanted = brute(model.images.double().numpy(), texts, captions)
        assert {key: got[key] for key in wanted} == pytest.approx(wanted)
        assert 0.05 < got["text_to_image_r1"] < got["text_to_image_r10"] < 1
        assert got["captions"] == sum(map(len, captions)) and got["samples"] == 40 and got["skipped"] == 0


def test_equal_captions_are_right_for_all_their_images() -> None:
    model = Table(torch.eye(3), {"same": torch.tensor([0.0, 0.1, 1.0]), "own": torch.tensor([0.0, 0.0, 1.0])})
    got = Retrieval().run(model, Captioned([("same",), ("same",), ("own",)]), None)
    # `same` is nearest to image 2, whose caption is another: wrong at 1, right at 5; `own` is right.
    assert got["text_to_image_r1"] == pytest.approx(1 / 3) and got["text_to_image_r5"] == 1
    shared = Retrieval().run(model, Captioned([("same",), ("same",), ("same", "own")]), None)
    assert shared["text_to_image_r1"] == 1


def test_a_collapsed_model_finds_nothing() -> None:
    names = [f"text {number}" for number in range(30)]
    model = Table(torch.ones(30, 4), {name: torch.ones(4) for name in names})
    got = Retrieval().run(model, Captioned([(name,) for name in names]), None)
    assert got["text_to_image_r10"] == got["image_to_text_r10"] == 0
    model = Table(torch.full((30, 4), torch.nan), {name: torch.ones(4) for name in names})
    assert Retrieval().run(model, Captioned([(name,) for name in names]), None)["text_to_image_r10"] == 0


def test_ranks_count_repeats_and_ties() -> None:
    query, candidates = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [2.0], [1.0], [5.0]])
    repeats = torch.tensor([4, 1, 7, 1, 1])
    assert ranks(query, candidates, [[1]], repeats).tolist() == [4 + 7 + 1]
    assert ranks(query, candidates, [[1, 2]], repeats).tolist() == [4 + 1]
    assert ranks(query, candidates, [[4, 3]], repeats).tolist() == [0]


def test_chance_is_that_of_random_scores() -> None:
    """Against every order of the candidates: equal ones stand together, and all of a wrong one's repeats count."""
    cases = [([1] * 6, [0], 1), ([1] * 6, [0, 3], 3), ([1, 2, 1, 3, 1], [1, 4], 3), ([4, 1, 2, 2, 1], [3], 5)]
    for repeats, right, cut in [*cases, ([1] * 4, [2], 5), ([5, 5, 1, 1], [0, 1], 1), ([3, 3, 9], [0], 3)]:
        orders = list(itertools.permutations(range(len(repeats))))
        ahead = [[repeats[c] for c in itertools.takewhile(lambda c: c not in right, order)] for order in orders]  # noqa: B023
        assert Luck(repeats)(right, cut) == pytest.approx(sum(sum(one) < cut for one in ahead) / len(orders))
    got = recalls(torch.eye(2), torch.eye(2), pair([("a",), ("b",)]))
    assert got["chance_text_to_image_r1"] == got["chance_image_to_text_r1"] == 0.5


def test_chance_is_what_embeddings_at_random_get() -> None:
    """Ten captions that are each the caption of four images, among forty of one image."""
    captions = [(f"shared {image % 10}",) if image < 40 else (f"own {image}",) for image in range(80)]
    pairs, draw = pair(captions), torch.Generator().manual_seed(0)
    rows = [(torch.randn(80, 16, generator=draw), torch.randn(50, 16, generator=draw)) for _ in range(300)]
    got = [recalls(*(functional.normalize(one, dim=-1) for one in both), pairs) for both in rows]
    for name in ("image_to_text_r5", "image_to_text_r10", "text_to_image_r5"):
        mean = sum(one[name] for one in got) / len(got)
        assert mean == pytest.approx(got[0][f"chance_{name}"], rel=0.08)
    assert got[0]["chance_image_to_text_r5"] < 0.6 * got[0]["chance_text_to_image_r5"]


def test_captions_limit_and_images_without_any() -> None:
    model, captions = made(0)
    captions[3] = ()
    got = Retrieval(captions=1).run(model, Captioned(captions), None)
    assert got["captions"] == got["samples"] == 39 and got["skipped"] == 1
    with pytest.raises(UserError, match="no usable image with a caption"):
        Retrieval().run(model, Captioned([(), ()]), None)
    with pytest.raises(UserError, match="no space that images and texts share"):
        Retrieval().run(Table(model.images, model.words, has_joint=False), Captioned(captions), None)
