"""What `data show` says of a source, and the contact sheet it draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onestage import api
from onestage.cli import command
from onestage.data.survey import lines, spread, survey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures in three sizes, of which two are equal and one is damaged; some captions repeat."""
    rows = []
    for number in range(12):
        side = 8 + 4 * (number % 3)
        Image.new("RGB", (side, 2 * side), (200, 20 * number, 0)).save(tmp_path / f"{number:02}.png")
        texts = [["the same", f"$own_{number}"], ["the same"], []][number % 3]
        rows.append({"file_name": f"{number:02}.png", "text": texts, "label": "ab"[number % 2]})
    (tmp_path / "03.png").write_bytes((tmp_path / "00.png").read_bytes())
    (tmp_path / "05.png").write_bytes(b"<html>")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_counts_sizes_captions_repeats_and_classes(folder: Path) -> None:
    seen = api.data_show(str(folder))
    assert (seen.samples, seen.looked) == (12, 12) and seen.faults == (("05.png", "not an image"),)
    assert seen.fields == {"texts": 8, "label": 11}
    assert sorted(map(tuple, seen.sizes.tolist())) == [(8, 16)] * 4 + [(12, 24)] * 4 + [(16, 32)] * 3
    assert seen.stored.tolist() == [(folder / f"{n:02}.png").stat().st_size for n in range(12) if n != 5]
    assert seen.captions.tolist() == [2, 1, 0, 2, 1, 2, 1, 0, 2, 1, 0] and seen.same_texts == {"the same": 8}
    assert seen.same_pictures == (("00.png", "03.png"),) and seen.classes == {"a": 6, "b": 5}
    told = "\n".join(lines(seen))
    for said in (
        f"{folder}: 12 samples, all of them looked at",
        "keys      00.png, 01.png",
        "hold      picture 100 %, texts 72.7 %, label 100 %",
        "sizes     8 x 16 to 16 x 32, median 12 x 24",
        "captions  12, 0 to 2 a sample (mean 1.09)",
        "kept true by colour, crop",
        "7 repeat another one; 8 times 'the same'",
        "equal     1 pictures repeat another one, such as 00.png = 03.png",
        "classes   2: a 6, b 5",
        "bad       05.png: not an image",
    ):
        assert said in told


def test_of_a_large_source_some_are_looked_at() -> None:
    seen = api.data_show("scenes", look=50)
    assert (seen.samples, seen.looked, len(seen.sizes)) == (20_000, 50, 50) and seen.fields["boxes"] == 50
    assert next(lines(seen)).endswith("20000 samples, 50 of them looked at")
    assert spread(10, 3) == [0, 4, 9] and spread(3, 10) == [0, 1, 2] and spread(1, 10) == [0]


def test_the_contact_sheet_shows_the_pictures(folder: Path) -> None:
    sheet = folder / "out" / "sheet.png"
    assert command(["data", "show", str(folder), "--out", str(sheet)]) == 0
    pixels = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    for number in spread(12, 10):
        if number not in (3, 5):
            shown = np.abs(pixels - np.array([200, 20 * number, 0])).max(-1) <= 1
            assert shown.sum() > 1000, number
    assert (pixels.min(-1) < 60).sum() > 500, "titles and captions"


def test_everything_that_a_scene_holds_can_be_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(["data", "show", "scenes:test", "--out", str(tmp_path / "a.png"), "--look", "20"]) == 0
    told = capfd.readouterr().out
    assert "mask 100 %" in told
    assert "no augmentation" in told and f"wrote {tmp_path}/a.png" in told
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert (np.abs(pixels - np.array([0xDC, 0x26, 0x26])).max(-1) < 3).sum() > 500, "boxes"


def test_an_empty_look_and_a_wrong_ending_are_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(["data", "show", str(folder), "--look", "0"]) == 2
    assert command(["data", "show", str(folder), "--out", "sheet.jpg"]) == 2
    told = capfd.readouterr().err
    assert "--look 0 must be above 0" in told and "is a PNG file, such as samples.png" in told


def test_a_source_that_is_all_bad(folder: Path) -> None:
    from onestage.data import open_source

    for number in range(12):
        (folder / f"{number:02}.png").write_bytes(b"")
    told = list(lines(survey(open_source(str(folder)), 100)))
    assert "nothing that can be used" in told[2] and told[-1] == "  bad       and 4 more"
