"""Replay: a crop stays for so many epochs, masks do not; answers come back from the ring, and a killed run goes on."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from killed import PLACES, begin, child, go_on, newest
from loading import drawn
from onestage.data import open_source
from onestage.engine.loader import Batches
from onestage.engine.pieces import on_device, split
from onestage.pretraining import Prepared, Recipe, prepare, start
from onestage.spec import UserError
from onestage.teachers.serving import Live, Replay, Serving
from onestage.teachers.serving.planning import Replayed
from onestage.teachers.serving.server import ReplayServer
from onestage.types import Batch
from small import BATCH, small
from stepping import brief_teacher, take
from typed import draw

COUNT, EPOCH = 24, 3
"""Pictures, and steps of a pass over them."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("replay")
    for number in range(COUNT):
        draw(root / "pictures" / f"{number:02}.png", number)
    brief_teacher(root / "teacher")
    return root


def recipe(place: Path, mode: Live | Replay, row: str = "uta", **changes: object) -> Recipe:
    serving = Serving(mode=mode, **({"masks": changes.pop("masks")} if "masks" in changes else {}))  # pyright: ignore[reportArgumentType]
    teachers = {"teacher": str(place / "teacher" / "run")}
    return small(row, data=str(place / "pictures"), teachers=teachers, serving=serving, **changes)


def by_key(data: Batches, epoch: int, name: str) -> dict[str, Tensor]:
    """Of every sample of an epoch: the box and flip of its view, or what is hidden of it."""
    found = {}
    for step in range(EPOCH * epoch, EPOCH * (epoch + 1)):
        batch, first = data[step], step * BATCH
        for slot in range(BATCH):
            key = open_source(data.source.name)[data.stream.at(first + slot).sample].key
            box = torch.cat([part[slot].float().flatten() for part in batch.views["view1"].geometry])
            found[key] = box if name == "view" else batch.hidden["kept/image"][slot]
    return found


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> int:
    assert first.keys() == second.keys()
    return sum(torch.equal(tensor, second[key]) for key, tensor in first.items())


# --- Geometry --------------------------------------------------------------------------------------------------------


def test_a_crop_stays_for_its_epochs_and_masks_do_not(place: Path) -> None:
    data = prepare(recipe(place, Replay(epochs=3)), None).batches
    views = [by_key(data, epoch, "view") for epoch in range(7)]
    hidden = [by_key(data, epoch, "hidden") for epoch in range(3)]
    for epoch in range(6):
        same = equal(views[epoch], views[epoch + 1])
        assert same == COUNT if epoch // 3 == (epoch + 1) // 3 else same < 3, epoch
    assert equal(hidden[0], hidden[1]) < COUNT / 2 > equal(hidden[1], hidden[2])
    live = prepare(recipe(place, Live()), None).batches
    assert equal(by_key(live, 0, "view"), views[0]) == COUNT, "the first epoch is that of a live run"
    assert equal(by_key(live, 1, "hidden"), hidden[1]) == COUNT, "masks always are"
    assert equal(by_key(live, 1, "view"), views[3]) == COUNT


@pytest.mark.parametrize("world", [2, 4])
def test_the_stream_is_the_same_for_any_number_of_processes(place: Path, world: int) -> None:
    alone = prepare(recipe(place, Replay(epochs=2)), None).batches
    for step in (0, 4, 7):
        whole = alone[step]
        parts = []
        for rank in range(world):
            shared = prepare(recipe(place, Replay(epochs=2)), None).batches
            shared.rank, shared.share = rank, BATCH // world
            parts.append(shared[step])
        assert_pieces(whole, parts)


def assert_pieces(whole: Batch, parts: list[Batch]) -> None:
    assert whole.marks is not None
    for name, view in whole.views.items():
        assert torch.equal(view.pixels, torch.cat([part.views[name].pixels for part in parts]))
    for name, mark in whole.marks.items():
        joined = [torch.cat([part.marks[name][i] for part in parts if part.marks]) for i in range(2)]
        assert torch.equal(mark.place, joined[0])
        assert torch.equal(mark.key, joined[1])
    for name, hidden in whole.hidden.items():
        assert torch.equal(hidden, torch.cat([part.hidden[name] for part in parts]))


def test_marks_are_cut_with_the_batch(place: Path) -> None:
    batch = prepare(recipe(place, Replay()), None).batches[1]
    assert_pieces(batch, split(batch, 4))


def test_live_batches_have_no_marks(place: Path) -> None:
    assert prepare(recipe(place, Live()), None).batches[0].marks is None


def test_a_key_tells_views_apart(place: Path) -> None:
    """Mirrored, moved, of another size, of another picture, or answered by someone else: another key."""
    prepared = prepare(recipe(place, Replay()), None)
    planning = prepared.batches.planning
    assert isinstance(planning, Replayed)
    mark = drawn(prepared.batches, 0)[0].marks["view1"]
    view = prepared.recipe.method.views["view1"]
    from onestage.teachers.serving.key import view_key

    plan, picture = mark.plan, b"picture"
    keys = [
        view_key(planning.salt, picture, plan, view),
        view_key(planning.salt, picture, dataclasses.replace(plan, flip=not plan.flip), view),
        view_key(planning.salt, picture, dataclasses.replace(plan, box=(plan.box[0] + 1, *plan.box[1:])), view),
        view_key(planning.salt, picture, dataclasses.replace(plan, colour=(("hue", 0.1),)), view),
        view_key(planning.salt, picture, plan, dataclasses.replace(view, size=8)),
        view_key(planning.salt, picture, plan, dataclasses.replace(view, interpolation="bilinear")),
        view_key(planning.salt, b"another", plan, view),
        view_key(b"someone else", picture, plan, view),
    ]
    assert len(set(keys)) == len(keys)
    assert view_key(planning.salt, picture, dataclasses.replace(plan, scale=0.5, shrink=2.0), view) == keys[0]


# --- Answers ---------------------------------------------------------------------------------------------------------


def counted(prepared: Prepared, steps: range) -> tuple[int, int]:
    """How many answers were needed and made in some steps."""
    server = prepared.server
    assert isinstance(server, ReplayServer)
    before = server.asked, server.made
    for step in steps:
        take(prepared, step)
    return server.asked - before[0], server.made - before[1]


def test_teachers_are_asked_once_in_so_many_epochs(place: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe(place, Replay(epochs=3), steps=40), tmp_path / "quarantine.jsonl")
    assert counted(prepared, range(EPOCH)) == (COUNT, COUNT)
    assert counted(prepared, range(EPOCH, 3 * EPOCH)) == (2 * COUNT, 0)
    assert counted(prepared, range(3 * EPOCH, 4 * EPOCH)) == (COUNT, COUNT)
    again = prepare(recipe(place, Replay(epochs=3), steps=40), tmp_path / "quarantine.jsonl")
    assert counted(again, range(3 * EPOCH, 4 * EPOCH)) == (COUNT, 0), "a killed run finds what it kept"


def test_within_a_budget(place: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe(place, Replay(epochs=2)), tmp_path / "quarantine.jsonl")
    server = prepared.server
    assert isinstance(server, ReplayServer)
    size = sum(shape.size("int8") + 16 for shape in server.answered.values())
    half = Replay(epochs=2, gigabytes=12.5 * size / 1e9, folder=str(tmp_path / "elsewhere"))
    prepared = prepare(recipe(place, half), tmp_path / "quarantine.jsonl")
    assert counted(prepared, range(EPOCH)) == (COUNT, COUNT)
    assert counted(prepared, range(EPOCH, 2 * EPOCH)) == (COUNT, COUNT - 12)
    files = list((tmp_path / "elsewhere").iterdir())
    assert sum(file.stat().st_size for file in files) == 12 * size
    prepared.server.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    none = Replay(gigabytes=size / 2e9)
    with pytest.raises(UserError, match="less than the answer for one sample"):
        take(prepare(recipe(place, none), tmp_path / "quarantine.jsonl"), 0)


@pytest.mark.parametrize("codec", ["int8", "fp16"])
def test_answers_are_those_of_the_teacher(place: Path, tmp_path: Path, codec: str) -> None:
    live = prepare(recipe(place, Live()), None)
    kept = prepare(recipe(place, Replay(codec=codec)), tmp_path / "quarantine.jsonl")  # pyright: ignore[reportArgumentType]
    ask = live.step.asks[0]
    batch = on_device(kept.batches[0], kept.device)
    wanted, first, second = live.server(ask, batch), kept.server(ask, batch), kept.server(ask, batch)
    assert torch.equal(first.rows, second.rows), "made and found are the same"
    assert torch.equal(first.pooled, second.pooled)
    for one, two in ((wanted.rows, first.rows), (wanted.pooled, first.pooled)):
        assert float(torch.cosine_similarity(one, two, dim=-1).min()) > 0.999
    assert all(torch.equal(*pair) for pair in zip(wanted.place, first.place, strict=True))
    assert first.geometry is batch.views["view1"].geometry
    assert wanted.grid == first.grid


def test_portions_change_nothing(place: Path) -> None:
    whole = prepare(recipe(place, Live()), None)
    batch = on_device(whole.batches[0], whole.device)
    cut = prepare(dataclasses.replace(whole.recipe, serving=Serving(micro_batch=3)), None)
    one, two = (prepared.server(prepared.step.asks[0], batch) for prepared in (whole, cut))
    assert float((one.rows - two.rows).abs().max()) < 1e-5
    assert torch.equal(one.place.cell, two.place.cell)


# --- Several masks ---------------------------------------------------------------------------------------------------


def test_several_masks_of_one_view(place: Path) -> None:
    prepared = prepare(recipe(place, Live(), masks=2), None)
    batch = on_device(prepared.batches[1], prepared.device)
    for one, two in zip(range(0, BATCH, 2), range(1, BATCH, 2), strict=True):
        assert torch.equal(batch.views["view1"].pixels[one], batch.views["view1"].pixels[two])
        assert not torch.equal(batch.hidden["kept/image"][one], batch.hidden["kept/image"][two])
    once = prepare(recipe(place, Live()), None)
    wanted = np.stack([drawn(once.batches, number)[1]["view1"] for number in range(4, 8)])
    assert torch.equal(batch.views["view1"].pixels[::2], torch.from_numpy(wanted))
    ask = prepared.step.asks[0]
    seen = prepared.server(ask, batch)
    assert float((seen.rows - once.server(ask, batch).rows).abs().max()) < 1e-5
    assert seen.rows.shape[0] == BATCH


def test_validation_has_views_of_its_own(place: Path, tmp_path: Path) -> None:
    """Whatever serves the run's own views, however many masks they have."""
    from onestage.pretraining.validation import validation_loss

    losses = []
    for serving in (Serving(), Serving(mode=Replay(), masks=2)):
        asked = dataclasses.replace(recipe(place, Live()), serving=serving, val=str(place / "pictures"))
        losses.append(validation_loss(prepare(asked, tmp_path / "quarantine.jsonl")))
    assert losses[0] == losses[1]


def test_masks_need_samples_that_stand_alone(place: Path) -> None:
    with pytest.raises(UserError, match="no whole views of 3 masks"):
        prepare(recipe(place, Live(), masks=3), None)
    with pytest.raises(UserError, match="tells the samples of a batch apart"):
        check_refused()


def check_refused() -> None:
    prepare(small("clip", serving=Serving(masks=2)), None)


def test_replay_needs_a_teacher(place: Path) -> None:
    with pytest.raises(UserError, match="has no teacher"):
        prepare(small("mae", serving=Serving(mode=Replay())), None)


# --- Whole runs ------------------------------------------------------------------------------------------------------


def test_a_killed_replay_ends_as_one_left_alone(place: Path, tmp_path: Path) -> None:
    asked = recipe(place, Replay(epochs=2))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(asked, whole, [])
    assert child(lambda: begin(asked, broken), (PLACES[0], 5)) == -signal.SIGKILL
    assert any((broken / "answers").iterdir())
    assert child(lambda: go_on(broken)) == 0
    one, two = newest(whole), newest(broken)
    for file, tensors in one.tensors.items():
        assert [name for name, tensor in tensors.items() if not torch.equal(tensor, two.tensors[file][name])] == []
    assert not (broken / "answers").exists(), "answers are not kept after the end"


def test_no_room_is_said_before_the_first_step(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="less than the answer for one sample"):
        start(recipe(place, Replay(gigabytes=1e-9)), tmp_path / "run", [])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_method_that_asks_for_more_than_rows_is_served_live_alone(place: Path) -> None:
    with pytest.raises(UserError, match=r"replay keeps rows alone.*asks 'teacher'.*use mode: live"):
        prepare(recipe(place, Replay(epochs=3), "maskalign"), None)
