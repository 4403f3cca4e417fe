"""Folders of very many files: each is named once, few are asked for their size, and all lie in a few arrays."""

from __future__ import annotations

import copy
import tracemalloc
from pathlib import Path

import pytest

from onestage.data import listing, open_source
from onestage.data.entries import Entries, Entry, Strings, merged
from onestage.spec import UserError


def test_few_files_of_many_are_asked_for_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(120):
        (tmp_path / f"c{number % 3}").mkdir(exist_ok=True)
        (tmp_path / f"c{number % 3}" / f"{number:03}.jpg").touch()
    asked: list[Path] = []

    def count(path: Path) -> int:
        asked.append(path)
        return 0

    monkeypatch.setattr(listing, "size_of", count)
    everyone = open_source(str(tmp_path))
    assert len(asked) == len(everyone) == 120
    asked.clear()
    monkeypatch.setattr(listing, "SIZED", 10)
    source = open_source(str(tmp_path))
    assert len(asked) == 10 and {path.parent.name for path in asked} == {"c0", "c1", "c2"}
    (tmp_path / "c1" / "001.jpg").rename(tmp_path / "c1" / "x.jpg")
    assert open_source(str(tmp_path)).fingerprint() != source.fingerprint()


def test_entries_come_back_as_they_were_and_take_little_memory() -> None:
    names = [f"class {number % 7}/photo_{number:07}.jpg" for number in range(10_000)]
    tracemalloc.start()
    entries = Entries(Entry(name, ("a caption of it",), name[:7]) for name in names)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 10_000 * (len(names[0]) + 15 + 50)  # a tuple of strings takes 300 bytes
    assert len(entries) == 10_000 and entries.classes == {f"class {number}" for number in range(7)}
    assert entries[9_999] == Entry(names[-1], ("a caption of it",), names[-1][:7])
    assert copy.deepcopy(entries)[123] == entries[123] == Entry(names[123], ("a caption of it",), names[123][:7])


def test_strings_of_every_kind() -> None:
    told = ["", "Käse", "日本", "\udce4\ud800", "a\0b\n", ""]
    strings = Strings(told)
    assert list(strings) == told and [strings[index] for index in range(6)] == told
    for index in (-1, 6):
        with pytest.raises(IndexError):
            strings[index]


def test_a_file_that_comes_again_has_more_texts() -> None:
    rows = [("b", ("1",), None), ("a", (), "x"), ("b", ("2", "3"), "y"), ("c", ("4",), None), ("a", ("5",), None)]
    both = merged("here", Entries(Entry(*row) for row in rows))
    assert [both[index] for index in range(3)] == [
        Entry("b", ("1", "2", "3"), "y"), Entry("a", ("5",), "x"), Entry("c", ("4",), None),
    ]  # fmt: skip
    once = Entries(Entry(name) for name in "abc")
    assert merged("here", once) is once
    with pytest.raises(UserError, match="here: a has the label 'x' and again 'y'; an image has one"):
        merged("here", Entries([Entry("a", (), "x"), Entry("a", (), "y")]))
