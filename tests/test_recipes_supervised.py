"""DeiT and DeiT III: the sheet's numbers, steps at full width, and samples that stand several times in a batch."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from full_width import steps
from onestage.data import Quarantine, Stream, open_source
from onestage.encoders import Vit
from onestage.engine.loader import Batches
from onestage.engine.repeats import Repeats
from onestage.methods import METHODS
from onestage.objective import Answers, Frozen
from onestage.recipes import recipe
from onestage.recipes.supervised import SUPERVISED_ROWS
from onestage.spec import UserError
from onestage.types import Batch

SHEETS = {
    "deit_b16": (1024, 300, 1e-3, 0.05, 3, "adamw", 224),
    "deit_distilled_b16": (1024, 300, 1e-3, 0.05, 3, "adamw", 224),
    "deit3_l16": (2048, 800, 3e-3, 0.05, 3, "lamb", 192),
    "deit3_l16_224": (512, 20, 1e-5, 0.1, 1, "adamw", 224),
    "deit3_b16": (2048, 800, 3e-3, 0.05, 3, "lamb", 192),
    "deit3_b16_224": (512, 20, 1e-5, 0.1, 1, "adamw", 224),
}
"""Batch, epochs, learning rate, decay, repeats, optimiser, pixels."""


@pytest.mark.parametrize("name", SHEETS)
def test_numbers_are_the_sheets_and_two_steps_are_taken(name: str) -> None:
    made = recipe(name)
    group, model = made.optimiser.groups["all"], made.models["student"]
    assert isinstance(model, Vit)
    numbers = (made.batch, made.epochs, group.lr, group.weight_decay, made.repeats, group.kind, model.size)
    assert numbers == SHEETS[name]
    done, _ = steps(made, Answers((7, 7), 0, 64, 0, 10) if made.method.named(Frozen) else None)
    assert len(done) == 2


def test_every_recipe_has_a_sheet() -> None:
    assert {make.__name__ for make in SUPERVISED_ROWS} == SHEETS.keys()


def test_drop_path_may_be_the_same_in_all_blocks() -> None:
    small = Vit(arch="deit3_small_patch16_224", size=32, width=16, heads=2, depth=3, drop_path=0.3)
    rising = [getattr(block.drop_path1, "drop_prob", 0.0) for block in small.build(frozenset()).backbone.blocks]
    made = dataclasses.replace(small, drop_path_shape="constant").build(frozenset())
    assert rising == pytest.approx([0.0, 0.15, 0.3])
    assert [block.drop_path2.drop_prob for block in made.backbone.blocks] == [0.3, 0.3, 0.3]
    assert made.backbone.pos_embed.shape[1] == 4  # none for the class token


@pytest.mark.parametrize(("batch", "times"), [(8, 2), (64, 3), (1024, 3), (2048, 3), (60, 5)])
def test_copies_are_all_there_and_no_two_are_partners(batch: int, times: int) -> None:
    found = [Repeats(batch, times).entry(number) for number in range(3 * batch * times)]
    assert sorted(found) == [(sample, copy) for sample in range(3 * batch) for copy in range(times)]
    assert all(one[0] != other[0] for one, other in zip(found[::2], found[1::2], strict=True))
    for step in range(3):
        counts = Counter(sample for sample, _ in found[step * batch : (step + 1) * batch])
        assert len(counts) <= batch // times + 2


def batch_of(times: int, step: int = 1, rank: int = 0, world: int = 1) -> Batch:
    row = METHODS["supervised"]
    row = dataclasses.replace(row, views={"view1": dataclasses.replace(row.views["view1"], size=24)})
    source = open_source("digits")
    return Batches(source, row, {}, 12, 0, None, Quarantine(None), None, 9, rank, world, repeats=times)[step]


def test_copies_are_one_sample_with_views_of_their_own() -> None:
    found, stream, source = batch_of(3), Stream(0, len(open_source("digits"))), open_source("digits")
    entries = [Repeats(12, 3).entry(number) for number in range(12, 24)]
    assert found.label is not None
    assert found.label.tolist() == [source[stream.at(sample).sample].label for sample, _ in entries]
    boxes = found.views["view1"].geometry.box
    by_sample = {sample: [i for i, entry in enumerate(entries) if entry[0] == sample] for sample, _ in entries}
    assert [len(places) for places in by_sample.values()] == [3, 3, 3, 3]
    assert all(len({tuple(boxes[i].tolist()) for i in places}) == 3 for places in by_sample.values())


def test_a_batch_with_copies_is_the_same_for_two_processes() -> None:
    whole, parts = batch_of(3), [batch_of(3, rank=rank, world=2) for rank in range(2)]
    assert whole.views["view1"].pixels.equal(torch.cat([part.views["view1"].pixels for part in parts]))


def test_a_batch_that_cannot_be_dealt_out() -> None:
    with pytest.raises(UserError, match="multiple of 16"):
        Repeats(14, 8)
    with pytest.raises(UserError, match="multiple of 10"):
        Repeats(8, 5)
