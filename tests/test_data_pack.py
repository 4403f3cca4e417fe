"""Packing any source into shards, killed or not, and checking what lies there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from killed import child
from onestage import api
from onestage.cli import command
from onestage.data import Digits, Scenes, open_source, pack
from onestage.data.pack import pack as pack_source
from onestage.spec import UserError
from shards import captioned, offsets, png, write_tar
from typed import draw

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def quiet(done: int, total: int) -> None:
    """Says nothing."""


def packed(out: Path, **changes: Any) -> Path:
    given = {"source": Scenes(length=40), "out": out, "size": None, "megabytes": 0.05, "workers": 0, "tell": quiet}
    pack_source(**(given | changes))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the indexes, which tell the time."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".index.json")}


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    source = Scenes(length=40)
    out = packed(tmp_path / "out", source=source)
    again = open_source(f"{out}/*.tar")
    assert len(list(out.glob("*.tar"))) > 2 and len(again) == 40 and again.classes == source.classes
    for index in range(40):
        one, two = source[index], again[index]
        assert (one.texts, one.label, one.boxes, one.box_labels) == (two.texts, two.label, two.boxes, two.box_labels)
        assert one.questions == two.questions
        assert np.array_equal(one.picture.decode(), two.picture.decode())


def test_files_stay_as_they_are_and_large_ones_are_brought_down(tmp_path: Path) -> None:
    pixels = np.kron(np.random.default_rng(0).integers(0, 255, (5, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    for name, crop in (
        ("a/wide.jpg", pixels),
        ("a/tall.png", pixels.swapaxes(0, 1)),
        ("b/small.jpg", pixels[:30, :30]),
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(tmp_path / "data" / name)
    source = open_source(f"{tmp_path}/data")
    as_they_are = open_source(f"{packed(tmp_path / 'same', source=source)}/*.tar")
    for index in range(3):
        assert as_they_are[index].picture.encoded() == (tmp_path / "data" / source[index].key).read_bytes()
    smaller = open_source(f"{packed(tmp_path / 'small', source=source, size=40)}/*.tar")
    sizes = {source[index].key: smaller[index].picture.size for index in range(3)}
    assert sizes == {"a/tall.png": (40, 64), "a/wide.jpg": (64, 40), "b/small.jpg": (30, 30)}
    assert smaller[2].picture.encoded() == (tmp_path / "data" / "b/small.jpg").read_bytes()
    small = np.asarray(Image.fromarray(pixels).resize((64, 40), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(smaller[1].picture.decode() - small).mean() < 10
    assert smaller.classes == ("a", "b") and [smaller[index].label for index in range(3)] == [0, 0, 1]


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    assert contents(packed(tmp_path / "one")) == contents(packed(tmp_path / "two", workers=2))


def test_a_packing_that_is_killed_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL in the midst of a shard, before it takes its name, before its index: what has a name is whole."""
    whole = contents(packed(tmp_path / "whole"))
    broken, calls = tmp_path / "broken", {"_add": 17, "index_shard": 1}
    for name in ("_add", "index_shard", "replace"):
        target, left = (Path if name == "replace" else pack), [calls.get(name, 2)]
        real = getattr(target, name)

        def dying(*words: Any, real: Any = real, left: list[int] = left, **named: Any) -> Any:
            left[0] -= 1
            return os.kill(os.getpid(), signal.SIGKILL) if left[0] < 0 else real(*words, **named)

        with monkeypatch.context() as patch:
            patch.setattr(target, name, dying)
            assert child(lambda: packed(broken) and None) == -signal.SIGKILL
        for path in broken.glob("*.tar"):
            assert path.read_bytes() == whole[path.name]
    kept = {path.name: path.stat().st_mtime_ns for path in broken.glob("*.tar")}
    assert 0 < len(kept) < len([name for name in whole if name.endswith(".tar")])
    packed(broken)
    assert contents(broken) == whole
    assert len(list(broken.glob("*.index.json"))) == len(list(broken.glob("*.tar")))
    assert {name: (broken / name).stat().st_mtime_ns for name in kept} == kept, "what was whole is not made again"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    out = packed(tmp_path / "out")
    before = contents(out)
    packed(out)
    assert contents(out) == before
    for changes in ({"source": Scenes(length=41)}, {"source": Digits()}, {"size": 32}):
        with pytest.raises(UserError, match="choose another folder"):
            packed(out, **changes)
    assert contents(out) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(UserError, match="no packing to go on with"):
        packed(tmp_path / "full")
    (out / "pack.json").write_text("{}")
    with pytest.raises(UserError, match="no plan of a packing"):
        packed(out)


def test_bad_samples_are_listed_and_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        draw(tmp_path / "data" / f"{number:02}.png", number)
    (tmp_path / "data" / "03.png").write_bytes((tmp_path / "data" / "03.png").read_bytes()[:900])
    (tmp_path / "data" / "07.png").write_bytes(b"<html>")
    words = ["data", "pack", f"{tmp_path}/data", "--out", f"{tmp_path}/out", "--shard-mb", "0.02", "--workers", "1"]
    assert command(words) == 0
    assert "12 samples in" in capfd.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["key"] for row in rows) == ["03.png", "07.png"]
    again = open_source(f"{tmp_path}/out/*.tar")
    assert [again[index].key.split("/")[1] for index in range(10)] == [
        f"{number:09}" for number in range(12) if number not in {3, 7}
    ]
    assert command(["data", "check", f"{tmp_path}/out/*.tar", "--workers", "0"]) == 0
    assert "10 samples, all of them sound" in capfd.readouterr().out


@pytest.mark.parametrize("workers", ["0", "2"])
def test_check_finds_every_fault(tmp_path: Path, workers: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_tar(
        tmp_path / "a.tar", [*captioned(0, 300), ("x.txt", b"x"), ("y.jpg", b"no jpeg"), *captioned(400, 1)]
    )
    api.data_index(str(path))
    status = path.stat()
    content, at = bytearray(path.read_bytes()), offsets(path)
    for name in ("000005.txt", "000290.png"):
        content[at[name] + 512 + 5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as when bytes rot on the disk
    assert command(["data", "check", str(path), "--workers", workers]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "303 samples, 5 faults"
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        "- a.tar/000005.txt", "- a.tar/000290.png", "- a.tar/000290", "- a.tar/x", "- a.tar/y",
    ]  # fmt: skip
    assert "but was" in lines[0] and "no picture" in lines[3] and "not an image" in lines[4]


def test_index_says_what_the_shards_hold(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "a.tar", [*captioned(0, 3), ("z.png", png(1))])
    path.write_bytes(path.read_bytes()[: offsets(path)["z.png"] + 532])
    assert command(["data", "index", str(path)]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "a.tar: 3 samples (3 png, 3 txt)",
        f"a.tar: byte {path.stat().st_size - 532}: 'z.png' is cut short (532 bytes are not read)",
    ]


def test_mistakes_are_said_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["index", "scenes"], "an index is for tar shards"),
        (["pack", "scenes"], "--out DIR is missing"),
        (["pack", "scenes", "--out", str(tmp_path / "x"), "--size", "0"], "above 0"),
        (["check", str(tmp_path / "none.tar")], "there is no such shard"),
        (["check", "digits", "--workers", "-1"], "expected 0"),
        (["cut", "scenes"], "data"),
    ):
        assert command(["data", *words]) == 2
        shown = capfd.readouterr()
        assert said in shown.out + shown.err and "Traceback" not in shown.err
