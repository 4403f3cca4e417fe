"""Training from annotated images and from clips: what is damaged is listed once with its reason, all else arrives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import write
from onestage.pretraining import start
from small import small


def listed(run: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["key"] for row in rows}), "each once"
    return {row["key"]: row["reason"] for row in rows}


def test_captions_of_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "images").mkdir()
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 255, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.jpg")
    (tmp_path / "images" / "03.jpg").write_bytes((tmp_path / "images" / "03.jpg").read_bytes()[:300])
    (tmp_path / "images" / "05.jpg").unlink()
    told = {
        "images": [{"id": number, "file_name": f"{number:02}.jpg"} for number in range(16)],
        "annotations": [{"image_id": number, "caption": f"picture {number}"} for number in range(16) if number != 9],
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    start(small("clip", steps=6, data=f"coco:{tmp_path / 'images'},{tmp_path / 'told.json'}"), tmp_path / "run", [])
    found = listed(tmp_path / "run")
    assert found.keys() == {"03.jpg", "05.jpg", "09.jpg"}
    assert found["05.jpg"] == "cannot be read (No such file or directory)" and found["09.jpg"] == "it has no text"


def test_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for number in range(10):
        write(tmp_path / "films" / f"{number}.mp4")
    (tmp_path / "films" / "4.mp4").write_bytes((tmp_path / "films" / "4.mp4").read_bytes()[:500])
    start(small("mae", steps=4, data=f"video:{tmp_path / 'films'}"), tmp_path / "run", [])
    assert list(listed(tmp_path / "run")) == ["4.mp4"]
