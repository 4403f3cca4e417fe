"""Batches are a function of (seed, step) alone, whoever makes them and wherever one starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from loading import GRID, SIDE, drawn, flat, made, same, sized
from onestage.data import Digits, Scenes
from onestage.engine.loader import batches
from onestage.engine.pieces import on_device, split
from onestage.pretraining import start
from onestage.roles import Hide, HideLater
from onestage.types import Batch
from onestage.views import Crop
from small import ALL_SAVED, BATCH, ROWS, small

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning"),
]


# --- A function of (seed, step) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("row", ["clip", "uta"])
def test_workers_and_starts_change_nothing(row: str, workers: int) -> None:
    alone = [made(Scenes(), sized(row))[step] for step in range(5)]
    for first in (0, 3):
        found = list(batches(made(Scenes(), sized(row)), first, 5, workers))
        assert len(found) == 5 - first
        assert all(same(one, two) for one, two in zip(alone[first:], found, strict=True))


@pytest.mark.parametrize("row", ["dino", "umt", "clip"])
def test_a_batch_arrives_as_it_left(row: str) -> None:
    """Several views in one buffer, cells hidden later, words."""
    batch = made(Scenes(), sized(row))[1]
    (found,) = batches(made(Scenes(), sized(row)), 1, 2, 1)
    assert same(batch, found) and found.copies == batch.copies
    assert all(view.pixels.is_contiguous() for view in found.views.values())
    assert len({view.pixels.untyped_storage().data_ptr() for view in found.views.values()}) == 1
    assert not found.number.is_shared()


def test_history_changes_nothing() -> None:
    """Backwards, twice, and over the end of an epoch."""
    source = Scenes(length=20)
    forwards = [made(source, sized("clip"))[step] for step in range(6)]
    used = made(source, sized("clip"))
    for step in (5, 0, 3, 3, 4):
        assert same(used[step], forwards[step])


def test_seeds_and_steps_change_everything() -> None:
    data = made(Scenes(), sized("clip"))
    other = made(Scenes(), sized("clip"), seed=1)
    for batch in (data[1], other[0]):
        for name in ("view1.pixels", "view1.box", "ids"):
            assert not torch.equal(flat(batch)[name], flat(data[0])[name])


def test_every_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    source = Scenes(length=20)
    data = made(source, sized("mae"), batch=4)
    orders = [[data.stream.at(number).sample for number in range(20 * epoch, 20 * epoch + 20)] for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_sample_is_cut_and_hidden_afresh_in_each_epoch() -> None:
    data = made(Scenes(length=8), sized("mae"))
    places = [{data.stream.at(number).sample: number for number in range(8 * epoch, 8 * epoch + 8)} for epoch in (0, 1)]
    (one, seen), (two, other) = drawn(data, places[0][3]), drawn(data, places[1][3])
    assert one.plans["view1"].box != two.plans["view1"].box and (seen["view1"] != other["view1"]).any()
    assert not np.array_equal(one.hidden["kept/image"], two.hidden["kept/image"])


def test_a_resumed_run_reads_what_it_would_have_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onestage.pretraining import loop, resume

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: list[int] = []

    def note(batch: Batch, device: torch.device) -> Batch:
        seen.append(int(batch.number[0]))
        return on_device(batch, device)

    monkeypatch.setattr(loop, "on_device", note)
    run = tmp_path / "run"
    start(small("mae", steps=4, saving=ALL_SAVED), run, [])
    for step in (3, 4):
        for file in (run / "checkpoints" / f"step_{step:08d}").iterdir():
            file.unlink()
    resume(run)
    assert seen == [0, 8, 16, 24, 16, 24]


# --- Hidden cells and geometry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [name for name, method in ROWS.items() if "hide" in str(method.inputs)])
def test_the_count_of_hidden_cells_is_constant(row: str) -> None:
    method = sized(row)
    hides = {f"{name}/{key}": part.hide for name, one in method.inputs.items() for key, part in one.parts.items()}
    hides |= {name: one.mix for name, one in method.inputs.items()}
    hiding = {name: hide for name, hide in hides.items() if isinstance(hide, Hide)}
    later = [name for name, hide in hides.items() if isinstance(hide, HideLater)]
    data = made(Digits(), method)
    noises = [data[step].noise for step in range(6)]
    for name in later:
        rows = torch.cat([noise[name] for noise in noises])
        assert rows.shape == (6 * BATCH, 16) and rows.min() >= 0 and rows.max() < 1
        assert len(rows.unique(dim=0)) == 6 * BATCH
    found = [data[step].hidden for step in range(6)]
    for hidden in found:
        assert hidden.keys() == hiding.keys()
        for name, cells in hidden.items():
            assert cells.dtype == torch.bool
            assert cells.shape == (BATCH, 16)
            counts, most = cells.sum(dim=1), hiding[name].count(GRID)
            assert counts.max() <= most if hiding[name].kind == "sampled" else counts.tolist() == [most] * BATCH
    for name, hide in hiding.items():
        ways = (
            4 if hide.kind == "units" else BATCH + 1
        )  # three of the four units of 2 x 2 cells can be hidden in 4 ways
        assert len({tuple(row) for hidden in found for row in hidden[name].tolist()}) >= ways


def test_views_carry_their_geometry() -> None:
    """The pixels of a view are those of its box, brought to size and flipped."""
    method = dataclasses.replace(sized("mae"), views={"view1": Crop(size=SIDE, scale=(0.2, 1.0), flip=0.5)})
    source = Scenes()
    data = made(source, method)
    flips = []
    for step in range(4):
        view = data[step].views["view1"]
        assert view.pixels.shape == (BATCH, 3, SIDE, SIDE)
        assert view.pixels.dtype == torch.uint8
        for place in range(BATCH):
            top, left, height, width = (int(number) for number in view.geometry.box[place])
            assert min(top, left) >= 0
            assert min(height, width) > 0
            assert max(top + height, left + width) <= source.size
            picture = source[data.stream.at(step * BATCH + place).sample].picture.decode()
            inside = torch.from_numpy(picture[top : top + height, left : left + width].copy()).permute(2, 0, 1)
            image = functional.resize(inside, [SIDE, SIDE], InterpolationMode.BICUBIC, antialias=True)
            flip = bool(view.geometry.flip[place])
            flips.append(flip)
            assert torch.equal(view.pixels[place], image.flip(-1) if flip else image)
    assert {True, False} == set(flips)


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_pieces_make_up_the_batch(pieces: int) -> None:
    batch = made(Scenes(), sized("clip"))[0]
    cut = split(batch, pieces)
    assert len(cut) == pieces
    for name, tensor in flat(batch).items():
        assert torch.equal(torch.cat([flat(piece)[name] for piece in cut]), tensor)
