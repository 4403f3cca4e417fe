"""A store gives back the views and answers that were put into it, and refuses everything else with the reason."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from killed import child
from loading import drawn
from onestage import pretraining
from onestage.cli import command
from onestage.engine.metrics import read_metrics
from onestage.engine.pieces import on_device
from onestage.engine.step import Step
from onestage.pretraining import Prepared, Recipe, loop, prepare
from onestage.roles import Plan
from onestage.spec import UserError, to_yaml
from onestage.teachers.serving import Serving, Stored
from onestage.teachers.serving import teach as teaching
from onestage.teachers.serving.live import Portions
from onestage.teachers.serving.server import LiveServer, StoreServer
from onestage.teachers.serving.shard import numbers_of, plan_of
from onestage.teachers.serving.store import Store
from onestage.views import Colour, Crop
from small import BATCH, small
from stepping import brief_teacher
from typed import draw

COUNT, VIEWS = 20, 3
MB = 0.02
"""A few pictures a shard."""
VIEW = Crop(scale=(0.3, 1.0), flip=0.5, colour=Colour(brightness=0.4, hue=0.1, grey=0.3, probability=0.7))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, one of them torn, a teacher, and a store."""
    root = tmp_path_factory.mktemp("store")
    for number in range(COUNT):
        draw(root / "pictures" / f"{number:02}.png", number)
    torn = root / "pictures" / "07.png"
    torn.write_bytes(torn.read_bytes()[:1500])
    brief_teacher(root / "teacher")
    put(root, root / "store")
    return root


def recipe(place: Path, store: Path | None = None, **changes: object) -> Recipe:
    made = small("uta", data=str(place / "pictures"), teachers={"teacher": str(place / "teacher" / "run")})
    method = dataclasses.replace(made.method, views={"view1": VIEW})
    serving = Serving() if store is None else Serving(mode=Stored(folder=str(store)))
    return dataclasses.replace(made, method=method, serving=serving, **changes)  # pyright: ignore[reportArgumentType]


def put(place: Path, store: Path, **changes: object) -> None:
    pretraining.teach(recipe(place, **changes), VIEWS, store, "int8", MB, lambda line: None)


def copied(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "store", tmp_path / "store"))


# --- What comes back -------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_teacher_on_the_same_pixels(place: Path) -> None:
    prepared = prepare(recipe(place, place / "store"), None)
    live = LiveServer(Portions(dict(prepared.teachers), Serving(), "fp32", prepared.device))
    ask, places = prepared.step.asks[0], set()
    for step in range(5):
        batch = on_device(prepared.batches[step], prepared.device)
        assert batch.marks is not None
        places |= set(batch.marks["view1"].place.tolist())
        kept, wanted = prepared.server(ask, batch), live(ask, batch)
        for one, two in ((kept.rows, wanted.rows), (kept.pooled, wanted.pooled)):
            found = torch.cosine_similarity(one, two, dim=-1)
            assert float(found.mean()) > 0.999
            assert float(found.min()) > 0.99
        assert torch.equal(kept.place.cell, wanted.place.cell)
    assert 20 < len(places) <= (COUNT - 1) * VIEWS, "views of a picture are drawn anew in each epoch"
    assert len({number % VIEWS for number in places}) == VIEWS


def losses(run: Path, prepared: Prepared) -> list[float]:
    loop.run_loop(prepared, run, loop.Progressed(), loop.Watched())
    return [float(line["loss"]) for line in read_metrics(run / "metrics.jsonl") if "loss" in line]  # pyright: ignore[reportArgumentType]


def test_loss_curves_of_live_and_store_agree(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same views they differ by the codec's error alone, which is small beside what is learned."""
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)
    kept = prepare(recipe(place, place / "store", steps=20), None)
    live = prepare(recipe(place, place / "store", steps=20), None)
    server = LiveServer(Portions(dict(live.teachers), Serving(), "fp32", live.device))
    step = Step(live.objective, live.optimisers, server, "fp32", 1, live.device)
    curves = []
    for name, prepared in (("kept", kept), ("live", live._replace(step=step, server=server))):
        (tmp_path / name).mkdir()
        curves.append(losses(tmp_path / name, prepared))
    first, second = map(np.array, curves)
    assert len(first) == 20
    assert np.abs(first - second).max() < 0.002 < (second[0] - second[-1]) / 5


@pytest.mark.parametrize(
    "colour", [(), (("hue", -0.03),), (("contrast", 1.3), ("brightness", 0.7), ("grey", 1.0), ("solarize", 128.0))]
)
def test_plans_come_back_exactly(colour: tuple[tuple[str, float], ...]) -> None:
    plan = Plan(box=(3, 0, 117, 90001), flip=bool(colour), colour=colour, shrink=1.7)
    assert plan_of(np.array(numbers_of(plan))) == plan


def test_a_torn_picture_is_replaced(place: Path) -> None:
    prepared = prepare(recipe(place, place / "store"), None)
    torn = next(i for i in range(COUNT) if prepared.source[i].key.startswith("07"))
    numbers = [number for number in range(3 * COUNT) if prepared.batches.stream.at(number).sample == torn]
    assert numbers
    assert all(drawn(prepared.batches, number)[0].marks["view1"].place is not None for number in numbers)
    assert prepared.batches.quarantine.count() == 1


# --- The writer ------------------------------------------------------------------------------------------------------


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def test_a_killed_writer_loses_the_unfinished_shard_alone(place: Path, tmp_path: Path) -> None:
    wrote, store = teaching.write_shard, tmp_path / "store"

    def third(folder: Path, number: int, *rest: object) -> Path:
        if number == 2:
            (folder / ".000002.tmp").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        return wrote(folder, number, *rest)  # pyright: ignore[reportArgumentType]

    teaching.write_shard = third
    try:
        assert child(lambda: put(place, store)) == -signal.SIGKILL
    finally:
        teaching.write_shard = wrote
    before = {path: path.stat().st_mtime_ns for path in store.glob("0*")}
    assert len(before) == 2
    with pytest.raises(UserError, match=r"unfinished, \d+ of \d+ shards are missing"):
        Store(store)
    put(place, store)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was whole is not made again"
    assert contents(store) == contents(place / "store"), "the same bytes as of a writer that was left alone"


def test_a_full_disk_is_said(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onestage.teachers.serving.shard.save_file", full)
    with pytest.raises(UserError, match=r"No space left on device.*type it again"):
        put(place, tmp_path / "store")


def test_nothing_else_is_overwritten(place: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="no store to go on with"):
        put(place, tmp_path / "full")
    with pytest.raises(UserError, match=r"holds another store: its seed is 0, not 1\."):
        put(place, place / "store", seed=1)


def test_the_verbs(place: Path, tmp_path: Path) -> None:
    """As typed: a store of two views in several shards, and a run that reads it."""
    (tmp_path / "uta.yaml").write_text(to_yaml(recipe(place, steps=2)))
    words = ["teach", f"{tmp_path}/uta.yaml", "--views", "2", "--out", f"{tmp_path}/made", "--shard-mb", f"{MB}"]
    assert command(words) == 0
    assert Store(tmp_path / "made").manifest.shards == 2
    mode = f"{{kind: store, folder: {tmp_path}/made}}"
    assert command(["pretrain", f"{tmp_path}/uta.yaml", "--out", f"{tmp_path}/run", "--serving.mode", mode]) == 0
    assert command(["teach", "mae_tiny", "--data", "digits", "--views", "2", "--out", f"{tmp_path}/none"]) == 2


# --- What is refused -------------------------------------------------------------------------------------------------


def refused(asked: Recipe, message: str, batches: int = 0) -> None:
    with pytest.raises(UserError, match=message):
        prepared = prepare(asked, None)
        for step in range(batches):
            batch = on_device(prepared.batches[step], prepared.device)
            prepared.server(prepared.step.asks[0], batch)


def test_another_teacher(place: Path, tmp_path: Path) -> None:
    pretraining.start(small("clip", steps=2, seed=5), tmp_path / "other", [])
    asked = dataclasses.replace(recipe(place, place / "store"), teachers={"teacher": str(tmp_path / "other")})
    refused(asked, r"stale or foreign: its teacher was .*teacher.run \(.{8}\), not .*other \(.{8}\)")


def test_other_views(place: Path) -> None:
    asked = recipe(place, place / "store")
    method = dataclasses.replace(asked.method, views={"view1": dataclasses.replace(VIEW, interpolation="bilinear")})
    refused(dataclasses.replace(asked, method=method), "its views 'view1' are .*bicubic.*, not .*bilinear")


def test_no_store(place: Path, tmp_path: Path) -> None:
    refused(recipe(place, tmp_path), "not a store of answers")


def test_a_picture_that_has_changed(place: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(place / "pictures", tmp_path / "pictures"))
    draw(changed / "03.png", 99)
    asked = dataclasses.replace(recipe(place, place / "store"), data=str(changed))
    refused(asked, "holds no answers for sample .* which is new or has changed", 4)


def test_renamed_pictures_are_found(place: Path, tmp_path: Path) -> None:
    """Answers belong to pictures, not to names or places."""
    for number in range(10, 19):
        (tmp_path / "fewer").mkdir(exist_ok=True)
        shutil.copy(place / "pictures" / f"{number}.png", tmp_path / "fewer" / f"renamed_{30 - number}.png")
    prepared = prepare(dataclasses.replace(recipe(place, place / "store"), data=str(tmp_path / "fewer")), None)
    assert isinstance(prepared.server, StoreServer)
    batch = on_device(prepared.batches[0], prepared.device)
    assert prepared.server(prepared.step.asks[0], batch).rows.shape[0] == BATCH


def test_a_mirrored_map(place: Path) -> None:
    """The key of the mirrored view is another, so its answer is not that of the store."""
    prepared = prepare(recipe(place, place / "store"), None)
    batch = on_device(prepared.batches[0], prepared.device)
    assert batch.marks is not None
    from onestage.teachers.serving.key import view_key

    marked, mark = drawn(prepared.batches, 0)[0].marks["view1"], batch.marks["view1"]
    assert isinstance(prepared.server, StoreServer)
    store = prepared.server.store
    picture = store._at(int(mark.place[0]) // VIEWS)
    digest = picture[0].row("picture", picture[1]).tobytes()
    view, salt = prepared.recipe.method.views["view1"], bytes.fromhex(store.manifest.salt)
    assert view_key(salt, digest, marked.plan, view) == tuple(mark.key[0].tolist())
    mirrored = view_key(salt, digest, dataclasses.replace(marked.plan, flip=not marked.plan.flip), view)
    key = mark.key.clone()
    key[0] = torch.tensor(mirrored)
    with pytest.raises(UserError, match="not that of this view"):
        prepared.server(prepared.step.asks[0], batch._replace(marks={"view1": mark._replace(key=key)}))


def test_a_shard_of_another_store(place: Path, tmp_path: Path) -> None:
    store = copied(place, tmp_path)
    pretraining.start(small("clip", steps=2, seed=5), tmp_path / "other", [])
    put(place, tmp_path / "foreign", teachers={"teacher": str(tmp_path / "other")})
    ours, theirs = (sorted(folder.glob("000000-*"))[0] for folder in (store, tmp_path / "foreign"))
    shutil.copy(theirs, store / theirs.name)
    refused(recipe(place, store), "a foreign shard")
    ours.unlink()
    refused(recipe(place, store), "a shard of another store")


def test_damaged_shards(place: Path, tmp_path: Path) -> None:
    store = copied(place, tmp_path)
    for path in store.glob("0*"):
        content = bytearray(path.read_bytes())
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        begin, end = (8 + int.from_bytes(content[:8], "little") + at for at in head["answer.0"]["data_offsets"])
        for at in range(begin + 50, end, 97):
            content[at] ^= 1
        path.write_bytes(content)
    refused(recipe(place, store), r"damaged .*check sum.* Remove it, and type the same onestage teach again", 1)
    next(iter(store.glob("000001-*"))).write_bytes(b"nothing")
    refused(recipe(place, store), "damaged")
