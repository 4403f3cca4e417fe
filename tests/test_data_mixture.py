"""Mixtures: a fixed composition for every step, a stream of its own for every part, and terms that leave out what is
missing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, final

import numpy as np
import pytest
import torch

from loading import flat, made, same, sized
from onestage.data import Digits, Mixed, Mixture, Scenes, Stream, generator, open_source
from onestage.data.mixture import composition
from onestage.data.stream import ARRAY, Feistel
from onestage.engine.loader import batches
from onestage.engine.pieces import on_device, split
from onestage.objective import Objective
from onestage.roles import Sample, Source
from onestage.spec import UserError
from onestage.types import Batch
from small import small

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning"),
]


@final
class Bare(Source):
    """Scenes without what is taken from them."""

    def __init__(self, length: int, classes: tuple[str, ...] = (), labels: bool = False) -> None:
        self.of = Scenes(length=length, seed=5)
        self.name, self.classes, self.has_labels = "bare", classes, labels
        self.keeps_captions = frozenset({"crop", "flip", "colour"})

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Sample:
        label = index % len(self.classes) if self.has_labels else None
        return dataclasses.replace(self.of[index], texts=(), label=label, key=f"bare{index}")

    def fingerprint(self) -> str:
        return self.of.fingerprint()


def mixture(*weights: float, sources: Any = None) -> Mixture:
    return Mixture("mix", sources or [Scenes(length=37), Bare(11), Digits()][: len(weights)], weights)


# --- Composition ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 7, 8, 64, 255, 256])
@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.3), (1.0, 1.0, 1.0), (0.5, 0.25, 0.25), (427.0, 15.0)])
def test_every_step_holds_the_same_number_of_each(weights: tuple[float, ...], batch: int) -> None:
    counts, slots = composition(weights, batch)
    parts = [part for part, _ in slots]
    assert len(slots) == batch == sum(counts) and [parts.count(part) for part in range(len(weights))] == counts
    assert all(parts[slot] == parts[slot ^ 1] for slot in range(batch // 2 * 2)), "partners are of one source"
    for part in range(len(weights)):
        assert [place for own, place in slots if own == part] == list(range(counts[part]))
        assert abs(counts[part] / 2 - weights[part] / sum(weights) * np.ceil(batch / 2)) < 1
    for end in range(0, batch, 2):  # spread evenly: every stretch from the start is nearly as the whole
        for part in range(len(weights)):
            assert abs(parts[:end].count(part) - counts[part] * end / batch) <= 2 * len(weights)


def test_every_part_has_a_stream_and_epochs_of_its_own() -> None:
    mixed = Mixed(0, mixture(0.7, 0.3), 20)
    assert mixed.counts == [14, 6]
    draws = [mixed.at(number) for number in range(20 * 60)]
    for part, length in enumerate((37, 11)):
        own = [draw for draw in draws if draw.part == part]
        assert [draw.epoch for draw in own] == [position // length for position in range(len(own))]
        for epoch in range(len(own) // length):
            assert sorted(draw.sample for draw in own[epoch * length : (epoch + 1) * length]) == list(range(length))
    again = Mixed(0, mixture(0.7, 0.3), 20)
    for number in generator(0, "any order").permutation(1200).tolist():
        assert again.at(number) == draws[number]
    assert [draw.sample for draw in draws] != [Mixed(1, mixture(0.7, 0.3), 20).at(n).sample for n in range(1200)]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_slices_of_ranks_make_up_the_stream(ranks: int) -> None:
    """Whoever asks for which numbers: what stands there is the same, also for a source smaller than a batch."""
    for stream in (lambda: Mixed(3, mixture(0.5, 0.5), 64), lambda: Stream(3, 11), lambda: Stream(3, 100_003)):
        whole = [stream().at(number) for number in range(192)]
        share, parts = 64 // ranks, [stream() for _ in range(ranks)]
        seen = [
            parts[rank].at(step * 64 + rank * share + place)
            for step in range(3)
            for rank in range(ranks)
            for place in range(share)
        ]
        assert seen == whole


def test_a_thousand_ranks_see_every_sample_once() -> None:
    length, world = 2_050_000, 1024
    streams = [Stream(0, length) for _ in range(world)]
    seen = Counter(streams[number % world].at(number).sample for number in range(0, length, 50) for _ in (0,))
    assert max(seen.values()) == 1 and len(seen) == 41_000


def test_a_billion_samples_need_no_permutation() -> None:
    stream = Stream(0, 1_000_000_007)
    seen = {stream.at(number).sample for number in range(0, 3_000_000_000, 99_991)}
    assert len(seen) > 29_990 and max(seen) < 1_000_000_007
    assert not any(isinstance(order, np.ndarray) for order in stream._orders.values())
    assert stream.at(10**18).epoch == 10**18 // 1_000_000_007


@pytest.mark.parametrize("length", [1, 2, 3, 5, 64, 100, 1000, 4097])
def test_the_feistel_network_is_a_permutation(length: int) -> None:
    keys = [tuple(generator(seed, "keys").integers(1 << 64, size=6, dtype=np.uint64).tolist()) for seed in range(3)]
    orders = [[Feistel(length, own)(number) for number in range(length)] for own in keys]
    assert all(sorted(order) == list(range(length)) for order in orders)
    assert length < 6 or orders[0] != orders[1] != orders[2]


def test_large_sources_are_mixed_as_well_as_small_ones() -> None:
    """Where numbers go is uniform, and neighbours go apart, as from a generator: chi-squared and correlation."""
    length = 66_000
    assert length > ARRAY, "no array is kept"
    stream = Stream(0, length)
    order = np.array([stream.at(number).sample for number in range(length)])
    assert np.array_equal(np.sort(order), np.arange(length))
    cells = np.histogram2d(np.arange(length), order, bins=20)[0]
    assert ((cells - length / 400) ** 2 / (length / 400)).sum() < 361 + 5 * np.sqrt(2 * 361)
    for lag in (1, 2, 3, 64, 256):
        assert abs(np.corrcoef(order[lag:], order[:-lag])[0, 1]) < 5 / np.sqrt(length)


# --- Batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_and_starts_change_nothing(workers: int) -> None:
    alone = [made(mixture(0.7, 0.3), sized("clip"))[step] for step in range(5)]
    for first in (0, 3):
        found = list(batches(made(mixture(0.7, 0.3), sized("clip")), first, 5, workers))
        assert all(same(one, two) for one, two in zip(alone[first:], found, strict=True))
        assert all(torch.equal(one.words.given, two.words.given) for one, two in zip(alone[first:], found, strict=True))


def test_a_batch_says_what_it_lacks() -> None:
    data = made(mixture(0.5, 0.5), sized("clip"), batch=8)
    assert data.captioned == 4
    batch = data[0]
    assert batch.words is not None and batch.words.given is not None and batch.labelled is None
    texts = [data.stream.at(number).part == 0 for number in range(8)]
    assert batch.words.given.tolist() == texts and sum(texts) == 4
    bare = batch.words.text_id[~batch.words.given].tolist()
    assert len(set(bare)) == 4 and max(bare) < 0
    assert batch.label is None
    data = made(mixture(0.5, 0.5), sized("supervised"), batch=8)
    labelled = data[0].labelled
    assert labelled is not None and labelled.tolist() == texts and data[0].label is not None
    assert [label < 0 for label in data[0].label.tolist()] == [not one for one in texts]
    moved, pieces = on_device(data[0], torch.device("cpu")), split(data[0], 2)
    assert torch.equal(moved.labelled, labelled)
    assert torch.equal(torch.cat([piece.labelled for piece in pieces]), labelled)


def test_whole_mixtures_are_like_one_source() -> None:
    data = made(mixture(1.0, 1.0, sources=[Scenes(length=20), Digits()]), sized("clip"))
    assert data[0].words is not None and data[0].words.given is None and data.captioned == data.batch


def test_classes_are_joined_by_name() -> None:
    mix = mixture(1.0, 1.0, 1.0, sources=[Bare(6, ("cat", "dog"), True), Bare(6, ("cow", "cat"), True), Bare(4)])
    assert mix.classes == ("cat", "dog", "cow") and len(mix) == 16
    assert [mix[index].label for index in range(16)] == [0, 1] * 3 + [2, 0] * 3 + [None] * 4
    with pytest.raises(IndexError):
        mix[16]


@pytest.mark.parametrize("row", ["clip", "supervised"])
def test_a_term_leaves_out_what_lacks_its_text_or_label(row: str) -> None:
    """Its loss is that of the samples which have it, and nothing else of the others counts."""
    recipe = small(row)
    method = sized(row)
    torch.manual_seed(0)
    models = {name: dataclasses.replace(m, size=16) if hasattr(m, "patch") else m for name, m in recipe.models.items()}
    models = {name: dataclasses.replace(m, patch=4) if hasattr(m, "patch") else m for name, m in models.items()}
    objective = Objective(dataclasses.replace(recipe.method, views=method.views), models, {}, 10).eval()
    batch = on_device(made(mixture(0.5, 0.5), method, batch=8)[0], torch.device("cpu"))
    kept = batch.labelled if batch.words is None else batch.words.given
    assert kept is not None
    with torch.no_grad():
        mixed, alone = objective(batch, {}), objective(only(batch, kept), {})
        noisy = {name: v._replace(pixels=torch.where(kept[:, None, None, None], v.pixels, 255 - v.pixels))
                 for name, v in batch.views.items()}  # fmt: skip
        other = objective(batch._replace(views=noisy), {})
    assert torch.allclose(mixed.total, alone.total, atol=1e-6) and torch.isfinite(mixed.total)
    assert torch.allclose(mixed.total, other.total, atol=1e-6)


def only(batch: Batch, kept: torch.Tensor) -> Batch:
    views = {
        name: view._replace(
            pixels=view.pixels[kept], geometry=type(view.geometry)(*(one[kept] for one in view.geometry))
        )
        for name, view in batch.views.items()
    }
    words = None if batch.words is None else type(batch.words)(batch.words.ids[kept], batch.words.text_id[kept])
    return Batch(batch.number[kept], views, {}, words, None if batch.label is None else batch.label[kept])


# --- As typed -------------------------------------------------------------------------------------------------------


def test_a_mixture_as_typed() -> None:
    mix = open_source("0.7*scenes+.3*digits")
    assert isinstance(mix, Mixture) and mix.weights == (0.7, 0.3)
    assert [part.name for part in mix.parts] == ["scenes:train", "digits:train"]
    assert mix.fingerprint() != open_source("0.6*scenes+0.4*digits").fingerprint()
    assert flat(made(mix, sized("clip"))[0])["ids"].shape[0] == 8
    for text in ("0.7*", "0*scenes+1*digits", "1*scenes+digits", "0.5*scenes+0.5*", "1*scenes+1*nothing"):
        with pytest.raises(UserError):
            open_source(text)
    with pytest.raises(UserError, match="no pair for bare"):
        Mixed(0, mixture(0.99, 0.01), 16)


def test_a_mixture_holds_what_its_parts_hold() -> None:
    scenes = open_source("scenes")
    one = open_source("0.5*scenes+0.5*digits")
    assert one.has_masks and one.has_questions and not one.has_clips
    assert (one.mask_classes, one.parts[0].mask_classes) == (scenes.mask_classes, scenes.mask_classes)
    assert one[0].mask is not None and one[0].questions
    other = Scenes()
    other.mask_classes = ("background", "ink")
    differing = Mixture("both", [Scenes(), other], [1.0, 1.0])
    assert not differing.has_masks and differing.mask_classes == (), "classes that are not the same are none"
