"""Folders of each layout, and what is said when a folder is not what it should be."""

from __future__ import annotations

import json
from csv import field_size_limit
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onestage.data import described, open_source
from onestage.roles import BadSample
from onestage.spec import UserError


def image(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(np.full((6, 5, 3), level, np.uint8)).save(path, kind)


def jsonl(folder: Path, *rows: object) -> Path:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def csv(folder: Path, text: str) -> Path:
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def test_class_folders(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "b.PNG", 2)
    image(tmp_path / "dog" / "deep" / "er" / "a.jpg", 1)
    image(tmp_path / "cat" / "c.jpeg", 3)
    image(tmp_path / "cat" / ".hidden.png")
    image(tmp_path / ".cache" / "d.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path))
    assert [source[index].key for index in range(len(source))] == ["cat/c.jpeg", "dog/b.PNG", "dog/deep/er/a.jpg"]
    assert source.classes == ("cat", "dog")
    assert [source[index].label for index in range(3)] == [0, 1, 1]
    assert source.has_labels and not source.has_texts and source[0].texts == ()
    assert source.keeps_captions == {"crop", "flip", "colour"}
    assert [int(source[index].picture.decode().mean()) for index in range(3)] == [3, 2, 1]
    assert source[0].picture.size == (5, 6)


def test_classes_are_in_the_order_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("10", "9", "b", "B", "a b"):
        image(tmp_path / name / "x.png")
        image(tmp_path / name / "y" / "z.jpg")
    source, theirs = open_source(str(tmp_path)), ImageFolder(str(tmp_path))
    assert list(source.classes) == theirs.classes
    ours = {source[index].key: source[index].label for index in range(len(source))}
    assert ours == {str(Path(path).relative_to(tmp_path)): label for path, label in theirs.samples}


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG"):
        image(tmp_path / name)
    image(tmp_path / "more" / "c.png")
    source = open_source(str(tmp_path))
    assert [source[index].key for index in range(3)] == ["a.JPG", "b.png", "more/c.png"]
    assert source.classes == () and not source.has_labels and source[2].label is None


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "a.png")
    root = tmp_path / "root"
    image(root / "dog" / "b.png")
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "up").symlink_to(root)
    (root / "dog" / "broken.png").symlink_to(tmp_path / "nothing")
    source = open_source(str(root))
    assert [source[index].key for index in range(len(source))] == ["cat/a.png", "dog/b.png", "dog/broken.png"]
    with pytest.raises(BadSample, match="No such file"):
        source[2].picture.decode()


def test_captions_of_a_jsonl(tmp_path: Path) -> None:
    for name in ("a.png", "in/b.png", "c.png", "d.png"):
        image(tmp_path / name)
    source = open_source(
        str(
            jsonl(
                tmp_path,
                {"file_name": "c.png", "text": [" two words ", "", "another"], "label": "zebra", "width": 5},
                {"file_name": "in/b.png", "text": "one text", "label": "ape"},
                {"file_name": "a.png", "text": None},
                {"file_name": "gone.png", "text": "Käse", "label": "ape"},
            )
        )
    )
    samples = [source[index] for index in range(len(source))]
    assert [sample.key for sample in samples] == ["c.png", "in/b.png", "a.png", "gone.png"]
    assert [sample.texts for sample in samples] == [("two words", "another"), ("one text",), (), ("Käse",)]
    assert source.classes == ("ape", "zebra") and [sample.label for sample in samples] == [1, 0, None, 0]
    assert source.has_texts and source.keeps_captions == {"crop", "colour"}
    with pytest.raises(BadSample, match="No such file"):
        samples[3].picture.decode()


def test_numbers_as_labels_keep_their_order(tmp_path: Path) -> None:
    for number in range(12):
        image(tmp_path / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "label": 11 - number} for number in range(12)]
    source = open_source(str(jsonl(tmp_path, *rows)))
    assert source.classes == tuple(str(number) for number in range(12))
    assert [source[index].label for index in range(12)] == list(range(11, -1, -1))
    assert not source.has_texts


def test_captions_of_a_csv(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    text = '\ufefffile_name,text,label,year\r\na.png,"red, and\nwide",Shoes,2012\r\nb.png,,,\r\n'
    source = open_source(str(csv(tmp_path, text)))
    assert [source[index].texts for index in range(2)] == [("red, and\nwide",), ()]
    assert source.classes == ("Shoes",) and [source[index].label for index in range(2)] == [0, None]


def test_fingerprint_follows_names_sizes_and_descriptions(tmp_path: Path) -> None:
    def now() -> str:
        return open_source(str(tmp_path)).fingerprint()

    image(tmp_path / "x" / "a.png")
    seen = [now()]
    assert now() == seen[0]
    image(tmp_path / "x" / "b.png")
    seen.append(now())
    (tmp_path / "x" / "b.png").write_bytes(b"longer than before" * 100)
    seen.append(now())
    (tmp_path / "x" / "b.png").rename(tmp_path / "x" / "c.png")
    seen.append(now())
    jsonl(tmp_path, {"file_name": "x/a.png", "text": "one"})
    seen.append(now())
    jsonl(tmp_path, {"file_name": "x/a.png", "text": "two"})
    seen.append(now())
    assert len(set(seen)) == len(seen)


def test_fingerprint_is_of_the_data_not_of_its_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        image(tmp_path / place / "x" / "a.png")
    assert open_source(str(tmp_path / "here")).fingerprint() == open_source(str(tmp_path / "there")).fingerprint()


def refused(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(path))
    return str(caught.value)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    assert "the folder is empty" in refused(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    assert "a file, not a folder" in refused(tmp_path / "a.txt")
    (tmp_path / "b.TXT").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c").write_text("x")
    told = refused(tmp_path)
    assert "no images among its 3 files (2 .txt, 1 (none))" in told and ".jpeg" in told


def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path: Path) -> None:
    image(tmp_path / "train" / "cat" / "a.png")
    image(tmp_path / "val" / "cat" / "b.png")
    assert "are splits, not classes" in refused(tmp_path) and str(tmp_path / "train") in refused(tmp_path)
    image(tmp_path / "car" / "c.png")
    assert open_source(str(tmp_path)).classes == ("car", "train", "val")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "x", "image": "a.png"}, "entry 2: there is no file_name (found: text, image)"),
        ({"file_name": 3}, "entry 2: there is no file_name"),
        ({"file_name": "../a.png"}, "entry 2: file_name '../a.png' leads out of the folder"),
        ({"file_name": "/etc/passwd"}, "entry 2: file_name '/etc/passwd' leads out of the folder"),
        ({"file_name": "a.png", "text": {"en": "x"}}, "entry 2: text is {'en': 'x'}; expected a string"),
        ({"file_name": "a.png", "text": ["x", 3]}, "entry 2: text is ['x', 3]"),
        ({"file_name": "a.png", "label": 0.5}, "entry 2: label is 0.5; expected a string or a whole number"),
        ({"file_name": "a.png", "label": True}, "entry 2: label is True"),
        (["a.png"], "line 2: expected an object"),
    ],
)
def test_rows_that_are_not_as_they_should_be(tmp_path: Path, row: object, told: str) -> None:
    image(tmp_path / "a.png")
    assert told in refused(jsonl(tmp_path, {"file_name": "a.png"}, row))


def test_metadata_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.png")
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n")
    assert "describes no image" in refused(tmp_path)
    path.write_text('{"file_name": "a.png"}\n{"file_name": "b.png"\n')
    assert "line 2: not valid JSON" in refused(tmp_path)
    path.write_text("[" * 100_000)
    assert "line 1: not valid JSON" in refused(tmp_path)
    path.write_bytes('{"file_name": "a.png", "text": "Käse"}\n'.encode("latin-1"))
    assert "not UTF-8" in refused(tmp_path)
    jsonl(tmp_path, {"file_name": "x/a.png"}, {"file_name": "x/b.png"})
    assert "none of the 2 files that it names is in" in refused(tmp_path)
    monkeypatch.setattr(described, "MAX_LINE", 30)
    jsonl(tmp_path, {"file_name": "a.png"}, {"file_name": "a.png", "text": "x" * 30})
    assert "line 2: longer than 30 characters" in refused(tmp_path)
    monkeypatch.setattr(described, "MAX_METADATA", 30)
    assert "bytes, more than 30" in refused(tmp_path)


def test_csv_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.png")
    assert "there is no file_name (found: image, text)" in refused(csv(tmp_path, "image,text\na.png,x\n"))
    assert "not valid CSV" in refused(csv(tmp_path, 'file_name,text\na.png,"never closed\n'))
    assert "describes no image" in refused(csv(tmp_path, "file_name,text\n"))
    monkeypatch.setattr(described, "MAX_LINE", 30)
    before = field_size_limit()
    assert "line 2: longer than 30" in refused(csv(tmp_path, "file_name,text\na.png," + "x" * 30 + "\n"))
    assert field_size_limit() == before


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    name = b"k\xe4se.png".decode("utf-8", "surrogateescape")
    image(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    source = open_source(str(tmp_path))
    assert source[0].picture.decode().shape == (6, 5, 3) and source.fingerprint()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scense", "did you mean 'scenes'?"),
        ("scenes:tset", "did you mean 'scenes:test'?"),
        ("digits:val", "scenes, scenes-pairs, scenes-clips, digits, each with :train or :test"),
        ("", "there is no such folder"),
    ],
)
def test_unknown_sources(text: str, told: str) -> None:
    assert told in refused(text)


def test_built_in_sources_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "scenes" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert [open_source(name).name for name in ("scenes", "scenes:train", "scenes:test", "digits", "digits:test")] == [
        "scenes:train",
        "scenes:train",
        "scenes:test",
        "digits:train",
        "digits:test",
    ]
    assert len(open_source("./scenes")) == 1


REAL = {
    "rsicd/val": (200, 30, 5),
    "fashion_text/val": (975, None, 1),
    "cifar10/test": (2000, 10, 0),
    "mnist/test": (600, 10, 0),
}


@pytest.mark.parametrize("place", REAL)
def test_real_folders(test_data: Path, place: str) -> None:
    count, classes, captions = REAL[place]
    source = open_source(str(test_data / place))
    assert len(source) == count and len(source.classes) == (classes or len(source.classes))
    samples = [source[index] for index in range(count)]
    assert {len(sample.texts) for sample in samples} == {captions}
    assert {sample.label for sample in samples} - {None} == set(range(len(source.classes)))
    assert sum(sample.label is None for sample in samples) == (15 if place == "rsicd/val" else 0)
    for sample in samples[:: count // 10]:
        assert sample.picture.decode().shape == (*sample.picture.size[::-1], 3)
