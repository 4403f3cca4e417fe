"""What the stream of batches promises, over ranks x workers x points of resumption, and for sets that fit nothing."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from loading import flat, made, sized
from onestage.data import Digits, Scenes, Stream, generator
from onestage.engine.loader import batches
from onestage.types import Batch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning"),
]
BATCH, STEPS, LENGTH = 16, 6, 37
"""An epoch ends in the midst of the third batch and of the fifth."""


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Tensor]]:
    """Every batch as one process makes it, without workers, from the start."""
    data = made(Scenes(length=LENGTH), sized("clip"), batch=BATCH)
    return [flat(data[step]) for step in range(STEPS)]


def slice_of(batch: dict[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    share = BATCH // world
    return {name: tensor[rank * share : (rank + 1) * share] for name, tensor in batch.items()}


def equal(one: Batch, two: dict[str, Tensor]) -> bool:
    mine = flat(one)
    return mine.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_any_rank_resumed_anywhere_reads_its_slice_of_the_same_batches(world: int, alone: list) -> None:
    for rank, first in itertools.product(range(world), (0, 2, STEPS - 1)):
        data = made(Scenes(length=LENGTH), sized("clip"), batch=BATCH, rank=rank, world=world)
        for step, batch in enumerate(batches(data, first, STEPS, 0), start=first):
            assert equal(batch, slice_of(alone[step], rank, world))


@pytest.mark.parametrize(("world", "workers"), [*itertools.product([1, 2, 4, 8], [1, 3])])
def test_workers_change_nothing_at_any_number_of_ranks(world: int, workers: int, alone: list) -> None:
    """One rank and one point of resumption of each, by chance but always the same."""
    rng = generator(0, "promises", world, workers)
    rank, first = int(rng.integers(world)), int(rng.integers(STEPS - 1))
    data = made(Scenes(length=LENGTH), sized("clip"), batch=BATCH, rank=rank, world=world)
    found = list(batches(data, first, STEPS, workers))
    assert len(found) == STEPS - first
    assert all(equal(batch, slice_of(alone[first + n], rank, world)) for n, batch in enumerate(found))


@pytest.mark.parametrize(("length", "batch", "world"), [(1, 8, 2), (5, 16, 4), (10, 6, 3), (37, 16, 8), (16, 16, 1)])
def test_sets_that_fit_no_batch_end_no_epoch_early(length: int, batch: int, world: int) -> None:
    """A set smaller than a batch, an epoch that ends within one, three ranks: every epoch has every sample once."""
    ranks = [made(Digits(), sized("mae"), batch=batch, rank=rank, world=world) for rank in range(world)]
    for data in ranks:
        data.stream = Stream(0, length)
    steps = -(-3 * length // batch)
    numbers = [int(n) for step in range(steps) for data in ranks for n in data[step].number]
    assert numbers == list(range(steps * batch)), "in their order, none twice, none left out"
    for epoch in range(3):
        seen = Counter(Stream(0, length).at(number).sample for number in numbers[epoch * length : (epoch + 1) * length])
        assert seen == Counter(range(length))


def test_a_thousand_ranks_read_an_epoch_once_between_them() -> None:
    """1,024 ranks of 2 samples each, over an index of a million: slices of steps, not every n-th number."""
    length, world, share = 1_000_003, 1024, 2
    streams = [Stream(5, length) for _ in range(world)]
    seen: Counter[int] = Counter()
    for step in (0, 1, 243, 487):
        for rank, stream in enumerate(streams):
            first = (step * world + rank) * share
            seen.update(stream.at(number).sample for number in range(first, first + share))
    assert max(seen.values()) == 1 and seen.total() == 4 * world * share
