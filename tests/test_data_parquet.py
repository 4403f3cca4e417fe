"""Parquet: what the hubs write, read at random; what is damaged or called otherwise is said."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onestage.data import open_source
from onestage.data.keys import Keys
from onestage.data.parquet import open_parquet
from onestage.data.verify import verify
from onestage.roles import BadSample
from onestage.spec import UserError

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra hf")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra hf")
HUB = '{"info": {"features": {"label": {"names": ["ape", "bee", "cow"], "_type": "ClassLabel"}}}}'


def png(level: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(content, "PNG")
    return content.getvalue()


def hub_table(first: int, rows: int) -> Any:
    """As `push_to_hub` writes it: a struct of bytes and path, and the names of the classes in the schema."""
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "id": list(numbers),
            "image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers],
            "caption": [[f"picture {number}", f" Bild {number} "] for number in numbers],
            "label": pa.array([None if number == 3 else number % 3 for number in numbers], pa.int64()),
        }
    )
    return table.replace_schema_metadata({"huggingface": HUB})


def write(path: Path, table: Any, rows: int = 4) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return f"parquet:{path}"


def test_shards_of_a_hub(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", hub_table(0, 10))
    write(tmp_path / "train-00001-of-00002.parquet", hub_table(10, 7), rows=3)
    write(tmp_path / "test-00000-of-00001.parquet", hub_table(50, 7))
    source = open_source(f"parquet:{tmp_path}/train-*.parquet")
    assert len(source) == 17 and source.classes == ("ape", "bee", "cow")
    assert source.has_texts and source.has_labels and source.keeps_captions == {"crop", "colour"}
    for index in np.random.default_rng(0).permutation(17).tolist() * 2:
        sample = source[index]
        assert sample.picture.size == (6, 4) and int(sample.picture.decode().mean()) == index
        assert sample.texts == (f"picture {index}", f"Bild {index}")
        assert sample.label == (None if index == 3 else index % 3)
    assert len({source[index].key for index in range(17)}) == 17
    assert source[12].key == "train-00001-of-00002.parquet@2"
    ranged = open_source(f"parquet:{tmp_path}/train-{{00000..00001}}-of-00002.parquet")
    assert ranged.fingerprint() == source.fingerprint()
    assert verify(source, 2, lambda done, total: None) == []


def test_plain_bytes_and_labels_without_names(tmp_path: Path) -> None:
    labels = ["10", "9", "9", "x"]
    table = pa.table({"jpg": [png(level) for level in range(4)], "txt": list("abcd"), "label": labels})
    source = open_source(write(tmp_path / "a.parquet", table))
    assert source.classes == ("10", "9", "x") and [source[i].label for i in range(4)] == [0, 1, 1, 2]
    assert not source.has_texts and source.keeps_captions == {"crop", "flip", "colour"}
    coded = table.set_column(2, "label", pa.array(labels).dictionary_encode())
    assert open_source(write(tmp_path / "b.parquet", coded)).classes == source.classes
    numbered = table.set_column(2, "label", pa.array([10, 9, 9, -1]))
    assert open_source(write(tmp_path / "c.parquet", numbered)).classes == ("-1", "10", "9")


def test_which_column_holds_what(tmp_path: Path) -> None:
    table = hub_table(0, 5).rename_columns(["id", "photo", "caption", "label"])
    table = table.append_column("fine", pa.array(list("vwxyz"))).append_column("mask", pa.array([png(9)] * 5))
    named = write(tmp_path / "a.parquet", table.replace_schema_metadata({"huggingface": HUB}))
    source = open_parquet(named, Keys(image="photo", text="fine", label="fine"))
    assert source[2].texts == ("x",) and source.classes == tuple("vwxyz") and source[2].label == 2
    usual = open_parquet(named, Keys(image="photo"))
    assert usual.fingerprint() != source.fingerprint() and usual.classes == ("ape", "bee", "cow")
    for keys, told in {
        Keys(): r"several columns hold bytes \(photo, mask\): say which with image=NAME",
        Keys(image="image"): "nothing is called 'image', .* image=; there are: caption, fine, id, label, mask, photo",
        Keys(image="photo", text="id"): "'id' holds int64, which is no text; columns: id",
        Keys(image="id"): "'id' holds int64, which is no image",
        Keys(image="photo", label="photo"): "'photo' holds struct.*, which is no label",
    }.items():
        with pytest.raises(UserError, match=told):
            open_parquet(named, keys)


def test_what_is_bad_is_a_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(png(7))
    cells = [{"bytes": None, "path": path} for path in ("here.png", "gone.png", "../a.png", "/etc/passwd", None)]
    cells += [{"bytes": b"", "path": None}, {"bytes": b"<html>", "path": "x.jpg"}, None]
    source = open_source(write(tmp_path / "a.parquet", pa.table({"image": cells, "text": ["a"] * 7 + [None]})))
    assert int(source[0].picture.decode().mean()) == 7 and source[7].texts == ()
    told = {}
    for index in range(1, 8):
        with pytest.raises(BadSample) as caught:
            source[index].picture.decode()
        told[index] = str(caught.value)
    assert told[1].startswith("cannot be read") and "lies outside" in told[2] and "lies outside" in told[3]
    assert told[4] == told[7] == "it has no picture" and told[5] == "the file is empty" and told[6] == "not an image"


def test_a_damaged_row_group_is_bad_and_the_others_are_not(tmp_path: Path) -> None:
    named = write(tmp_path / "a.parquet", hub_table(0, 12))
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(1)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[group.data_page_offset : group.data_page_offset + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(content)
    source = open_source(named)
    for index in (0, 3, 8, 11):
        assert int(source[index].picture.decode().mean()) == index
    for index in range(4, 8):
        with pytest.raises(BadSample, match=r"a\.parquet: cannot be read as Parquet"):
            source[index].picture.decode()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(text: str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(text)
        return str(caught.value)

    assert "there is no such Parquet file" in refused(f"parquet:{tmp_path}/*.parquet")
    assert "there is no such Parquet file" in refused(f"parquet:{tmp_path}")
    good = write(tmp_path / "a.parquet", hub_table(0, 4))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    assert "b.parquet: cannot be read as Parquet" in refused(f"parquet:{tmp_path}/*.parquet")
    write(tmp_path / "b.parquet", pa.table({"image": [png(0)], "label": [1]}))
    assert "b.parquet: has no column 'image' of struct" in refused(f"parquet:{tmp_path}/*.parquet")
    assert "no column holds pictures as bytes; columns: x (int64)" in refused(
        write(tmp_path / "c.parquet", pa.table({"x": [1]}))
    )
    assert "without a row" in refused(write(tmp_path / "d.parquet", hub_table(0, 1).slice(0, 0)))
    before = open_source(good).fingerprint()
    write(tmp_path / "a.parquet", hub_table(1, 4))
    assert open_source(good).fingerprint() != before


def test_memory_is_bounded_and_a_copy_opens_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onestage.data import parquet

    source = open_parquet(write(tmp_path / "a.parquet", hub_table(0, 40)))
    monkeypatch.setattr(parquet, "KEPT", 3 * source.groups.read(0).nbytes)
    for index in range(40):
        source[index]
        assert len(source.groups._tables) <= 4
    other = copy.deepcopy(source)  # by the same protocol as a loading process that is not forked receives it
    assert other.groups._tables == {} and other[33].texts == source[33].texts


def test_large_row_groups_are_said_to_be_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onestage.data import parquet

    named = write(tmp_path / "a.parquet", hub_table(0, 40))
    open_source(named)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(parquet, "KEPT", 100)
    monkeypatch.setattr(parquet, "LARGE", 100)
    open_source(named)
    assert "costs a whole one; hf:FOLDER, or shards made by `onestage data pack`" in capsys.readouterr().err


def test_a_table_beside_the_images(tmp_path: Path) -> None:
    for level in range(3):
        (tmp_path / f"{level}.png").write_bytes(png(level))
    names = ["0.png", "1.png", "0.png", "2.png", "0.png"]
    rows = {
        "file_name": names,
        "caption": ["a", "b", "c", None, "d"],
        "label": [4, 4, None, 7, 4],
        "vector": [[0.5]] * 5,
    }
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    source = open_source(str(tmp_path))
    assert [source[i].key for i in range(len(source))] == ["0.png", "1.png", "2.png"]
    assert [source[i].texts for i in range(3)] == [("a", "c", "d"), ("b",), ()]
    assert source.classes == ("4", "7") and [source[i].label for i in range(3)] == [0, 0, 1]
    rows = {"file_name": names[:2], "texts": [["a", " b "], []]}
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    assert [open_source(str(tmp_path))[i].texts for i in range(2)] == [("a", "b"), ()]
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"metadata\.parquet: cannot be read as Parquet"):
        open_source(str(tmp_path))
