"""Tar shards as a source: samples, indexes, patterns, and what becomes of what cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from onestage.data import Quarantine, first_good, open_source
from onestage.data.shard_index import Index, pack_stems, places, read_index
from onestage.data.shards import Labels, Shards
from onestage.roles import BadSample
from onestage.sample import Question
from onestage.spec import UserError
from shards import captioned, offsets, png, write_tar


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_samples_of_several_shards_of_unequal_size(tmp_path: Path) -> None:
    for shard, (start, count) in enumerate([(0, 5), (5, 1), (6, 9)]):
        write_tar(tmp_path / f"{shard:03}.tar", captioned(start, count))
    source = open_source(f"{tmp_path}/{{000..002}}.tar")
    assert len(source) == 15 and source.has_texts and not source.has_labels
    for index in (14, *range(15)):
        sample = source[index]
        assert sample.texts == (f"picture {index}",) and sample.key.endswith(f".tar/{index:06}")
        assert sample.picture.size == (6, 6) and int(sample.picture.decode().mean()) == index
    assert source.fingerprint() == open_source(f"{tmp_path}/*.tar").fingerprint()
    assert len(open_source(f"{tmp_path}/001.tar")) == 1
    with pytest.raises(IndexError):
        source[15]


def test_a_shard_of_the_world(test_data: Path, tmp_path: Path) -> None:
    shutil.copy(test_data / "cc12m_shard" / "cc12m-train-0000.tar", tmp_path)
    source = open_source(f"{tmp_path}/cc12m-train-0000.tar")
    assert len(source) == 32
    for index in range(32):
        sample = source[index]
        assert len(sample.texts) == 1 and sample.picture.decode().shape == (*sample.picture.size[::-1], 3)
    assert source[0].texts == ("Red Square is a city square in Moscow, Russia.",)


def test_texts_labels_boxes_and_questions(tmp_path: Path) -> None:
    told = {"texts": ["eins", " zwei "], "boxes": [[0, 1, 2, 3.5]], "box_labels": [4]}
    told |= {"box_crowds": [True], "questions": [["a?", "b"], ["c?", ["d", "d"], "7"]]}
    write_tar(
        tmp_path / "a.tar",
        [
            *(("d/0.jpg", png(0)), ("d/0.json", json.dumps(told).encode()), ("d/0.cls", b"2\n")),
            *(("d/1.png", png(1)), ("d/1.json", b'{"caption": "drei", "label": 10}')),
            *(("d/2.TXT", "日本".encode()), ("d/2.PNG", png(2))),
            *(("d/3.webp", png(3)), ("d/3.json", b"{"), ("d/3.txt", b"  ")),
        ],
    )
    source = open_source(f"{tmp_path}/a.tar")
    assert [sample.texts for sample in map(source.__getitem__, range(4))] == [
        ("eins", "zwei"),
        ("drei",),
        ("日本",),
        (),
    ]
    assert [source[index].label for index in range(4)] == [2, 10, None, None]
    assert source.classes == tuple(map(str, range(11))), "a number is its own label, also beside other shards"
    assert source[0].boxes == ((0.0, 1.0, 2.0, 3.5),) and source[0].box_labels == (4,)
    assert source[0].box_crowds == (True,)
    assert source[0].questions == (Question("a?", ("b",)), Question("c?", ("d", "d"), "7"))


@pytest.mark.parametrize(
    "told",
    ['{"\\u0074ext": "eins"}', '{"text": "eins"}', '{"captions": ["eins"]}', '{"a": 1, "texts": ["eins"], "b": "\\n"}'],
)
@pytest.mark.parametrize("coding", ["utf-8", "utf-16", "utf-32", "utf-8-sig"])
def test_a_name_in_a_json_is_seen_however_it_is_written(told: str, coding: str, tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar", [("0.png", png(0)), ("0.json", told.encode(coding)), ("1.png", png(1)), ("1.txt", b"x")]
    )
    assert [sample.texts for sample in open_source(str(tmp_path / "a.tar"))] == [("eins",), ("x",)]


def test_classes_by_name_and_named_numbers(tmp_path: Path) -> None:
    for shard, names in enumerate([("dog", "cat"), ("cow", "dog")]):
        rows = [((f"{number}.png", png(number)), (f"{number}.cls", name.encode())) for number, name in enumerate(names)]
        write_tar(tmp_path / "names" / f"{shard}.tar", [member for row in rows for member in row])
    source = open_source(f"{tmp_path}/names/{{0..1}}.tar")
    assert source.classes == ("cat", "cow", "dog")
    assert [source[index].label for index in range(4)] == [2, 0, 1, 2]
    write_tar(tmp_path / "numbers" / "0.tar", [("0.png", png(0)), ("0.cls", b"1")])
    (tmp_path / "numbers" / "classes.txt").write_text("cat\ndog\nelk\n")
    source = open_source(f"{tmp_path}/numbers/0.tar")
    assert source.classes == ("cat", "dog", "elk") and source[0].label == 1
    (tmp_path / "numbers" / "classes.txt").write_text("cat\n")
    with pytest.raises(UserError, match=r"names 1 classes, but the shards have 2"):
        open_source(f"{tmp_path}/numbers/0.tar")


def test_grouping_is_webdatasets(tmp_path: Path) -> None:
    """Neighbours with the same name up to the first dot; a kind that comes again begins another sample."""
    names = ["a.png", "a.seg.png", "a.txt", "b/a.txt", "b/a.png", "a.png", "c.png", "c.png", ".hidden.png", "none"]
    write_tar(tmp_path / "a.tar", [(name, png(number)) for number, name in enumerate(names)])
    source = open_source(f"{tmp_path}/a.tar")
    assert [source[index].key for index in range(len(source))] == [
        f"a.tar/{key}" for key in ("a", "b/a", "a", "c", "c")
    ]
    assert [int(source[index].picture.decode().mean()) for index in range(5)] == [0, 4, 5, 6, 7]


def test_an_index_is_made_once_and_anew_when_the_shard_changes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 3))
    open_source(str(path))
    assert "1 of 1 shards have no index yet" in capsys.readouterr().err
    assert json.loads(places(path)[0].read_text())["samples"] == 3
    open_source(str(path))
    assert capsys.readouterr().err == ""
    write_tar(path, captioned(0, 4))
    assert len(open_source(str(path))) == 4
    write_tar(path, captioned(4, 4))
    os.utime(path, ns=(0, 1))  # of the same size: the time tells
    assert open_source(str(path))[0].texts == ("picture 4",)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("change", ["torn", "empty", "list", "far", "short", "other", "bits", "number"])
def test_an_index_that_is_broken_is_made_anew(tmp_path: Path, change: str) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 3))
    wanted = open_source(str(path)).fingerprint()
    place = places(path)[0]
    plain = json.loads(place.read_text())
    plain |= {"other": {"format": "x"}, "number": {"samples": 2, "stems": "a"}}.get(change, {})
    if change in {"far", "short"}:
        plain["columns"]["offset"] = "//////////8=" * 6 if change == "far" else ""
    if change == "bits":
        plain["columns"]["kind"] = "*"
    text = {"torn": place.read_text()[:100], "empty": "", "list": "[" * 100_000}.get(change, json.dumps(plain))
    place.write_text(text)
    assert read_index(path) is None
    assert open_source(str(path)).fingerprint() == wanted
    assert read_index(path) is not None


def test_an_index_goes_into_the_cache_where_the_folder_takes_none(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 3))
    places(path)[0].mkdir()  # nothing can take its place
    assert len(open_source(str(path))) == 3
    assert places(path)[1].is_file() and read_index(path) is not None


def test_whatever_is_lost_is_written_down_once(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [*captioned(0, 20), ("x.txt", b"no picture"), ("y.pkl", b"cos\nsystem\n."), ("z.png", b""), *captioned(30, 1)],
    )
    content, at, end = bytearray(path.read_bytes()), offsets(path)["000007.png"], offsets(path)["000030.txt"] + 1024
    content[at : at + 512] = bytes(range(256)) * 2
    path.write_bytes(content[:end])
    source, quarantine = open_source(str(path)), Quarantine(tmp_path / "q.jsonl")
    seen = []
    for _ in range(2):
        for index in range(len(source)):
            seen.append(first_good(source, index, 0, lambda s: int(s.picture.decode().mean()), quarantine))
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert {(row["key"], row["reason"]) for row in rows} == {
        ("a.tar/000007", "it has no picture (its members: txt)"),
        ("a.tar/x", "it has no picture (its members: txt)"),
        ("a.tar/y", "it has no picture (its members: pkl)"),
        ("a.tar/z", "the file is empty"),
        (f"a.tar@{at}", "no valid header"),
        (f"a.tar@{end}", "no end mark: the archive is cut short"),
    }
    assert len(rows) == 6
    assert set(seen) == {*range(20), 30} - {7}


def test_a_shard_that_shrinks_is_a_bad_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 3))
    source = open_source(str(path))
    os.truncate(path, 600)
    with pytest.raises(BadSample, match="shorter than its index"):
        source[2]


def test_mistakes_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "000.tar", captioned(0, 2))
    write_tar(tmp_path / "bare" / "a.tar", [("a.jpgg", b"x"), ("a.txt", b"y")])
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    for text, said in {
        f"{tmp_path}/{{000..002}}.tar": r"no such shard: .*001.tar and 1 more",
        f"{tmp_path}/x*.tar": "there is no such shard",
        f"{tmp_path}/{{5..3}}.tar": "counts up",
        f"{tmp_path}/bare/a.tar": "members end in jpgg, txt; pictures end in",
        f"{tmp_path}/empty.tar": "there are no members",
    }.items():
        with pytest.raises(UserError, match=said):
            open_source(text)


def test_a_million_samples_are_sought_in_milliseconds() -> None:
    many = 1_000_000
    members = np.arange(2 * many)
    index = Index(
        "a.tar", 2 * many * 1024, 0, ("jpg", "cls"), 0, (), (), *pack_stems([str(n) for n in range(many)]),
        np.arange(0, 2 * many + 1, 2), (members % 2).astype(np.uint16), members * 1024 + 512,
        np.full(2 * many, 512), np.zeros(2 * many, np.uint32), np.full(many, -1, np.int32),
    )  # fmt: skip
    source = Shards("a", [Path("a.tar")] * 3, [index] * 3, Labels((), {}))
    began = time.perf_counter()
    keys = [source[number].key for number in range(0, 3 * many, 29_999)]
    assert (time.perf_counter() - began) / len(keys) < 1e-3
    assert keys[40] == f"a.tar/{40 * 29_999 % many}"
