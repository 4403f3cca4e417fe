"""Cutting clips: exactly their spans, their texts and classes, going on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from films import spans, write
from onestage import api
from onestage.cli import command
from onestage.data import open_source
from onestage.spec import UserError

pytest.importorskip("av", reason="PyAV is not installed")


def levels(source: str, index: int) -> list[int]:
    """The numbers of the frames of a clip, by how light they are."""
    clip = open_source(source)[index].clip
    assert clip is not None
    return [round(float(frame.mean()) / 20) for frame in clip.decode(clip.times())]


def test_clips_hold_their_spans_and_are_a_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, out = spans(tmp_path / "set"), tmp_path / "out"
    text = f"video:{file},{file.with_name('texts.jsonl')}"
    assert command(["data", "cut", text, "--out", str(out), "--workers", "0"]) == 0
    assert f"2 clips in {out}; they are a source: video:{out}" in capfd.readouterr().out
    made = open_source(f"video:{out}")
    assert [made[index].texts for index in (0, 1)] == [("first",), ("second",)]
    assert levels(f"video:{out}", 0) == [2, 3, 4] and levels(f"video:{out}", 1) == [5, 6, 7, 8, 9]
    for index in (0, 1):
        clip = made[index].clip
        assert clip is not None and clip.times() == pytest.approx(np.arange(3 + 2 * index) / 10, abs=2e-3)
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    (out / "v1.1.mp4").unlink()
    assert api.data_cut(text, out=out, workers=0) == (2, 0)
    assert (out / "v1.0.mp4").stat().st_mtime_ns == stamps[out / "v1.0.mp4"] and (out / "v1.1.mp4").exists()
    assert not list(out.glob(".*"))
    with pytest.raises(UserError, match="of another source, of changed data or of another size"):
        api.data_cut(text, out=out, size=16, workers=0)


def test_size_and_classes(tmp_path: Path) -> None:
    for name in ("run/a", "jump/b"):
        write(tmp_path / "films" / f"{name}.mkv")
    assert api.data_cut(f"video:{tmp_path / 'films'}", out=tmp_path / "out", size=17, workers=2) == (2, 0)
    made = open_source(f"video:{tmp_path / 'out'}")
    assert made.classes == ("jump", "run") and made[1].label == 1 and made[1].key == "run/a.mp4"
    assert made[0].picture.size == (26, 16), "an odd row is left out: H.264 has none"
    assert levels(f"video:{tmp_path / 'out'}", 0) == list(range(12))


def test_bad_clips_are_listed(tmp_path: Path) -> None:
    file = spans(tmp_path / "set")
    row = json.loads(file.read_text())
    row["clip"].append({"clip_id": "v1.2.mp4", "span": [50, 60]})
    file.write_text(f"{json.dumps(row)}\n")
    assert api.data_cut(f"video:{file}", out=tmp_path / "out", workers=0) == (2, 1)
    told = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [(one["key"], one["reason"]) for one in told] == [("v1.2.mp4", "no frame between 50 s and 60 s")]


def test_mistakes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(["data", "cut", "digits", "--out", str(tmp_path / "out")]) == 2
    assert "digits:train has no clips; expected video:FOLDER or video:FILE.jsonl" in capfd.readouterr().err
    assert command(["data", "cut", f"video:{spans(tmp_path / 'set')}"]) == 2
    assert "--out DIR is missing" in capfd.readouterr().err
    text = f"video:{tmp_path / 'set' / 'told.jsonl'}"
    with pytest.raises(UserError, match="holds files, but no cutting to go on with"):
        api.data_cut(text, out=tmp_path, workers=0)
    with pytest.raises(UserError, match="the folder of the videos, and would be taken for some of them"):
        api.data_cut(text, out=tmp_path / "set" / "out", workers=0)
    with pytest.raises(UserError, match="--size 1 must be above 1"):
        api.data_cut(text, out=tmp_path / "out", size=1)
    write(tmp_path / "torn" / "a.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no clip could be cut; the reasons are in .*quarantine.jsonl"):
        api.data_cut(f"video:{tmp_path / 'torn'}", out=tmp_path / "none", workers=0)
