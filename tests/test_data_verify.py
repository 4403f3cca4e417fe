"""`data check` beside pictures: masks, instances, second pictures and clips that cannot be used are found too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import spans, write
from onestage import api
from onestage.data.video import VideoFile
from typed import draw


def faults(source: str) -> list[tuple[str, str]]:
    return [(fault.key, fault.reason) for fault in api.data_check(source, workers=0)[1]]


def test_masks_of_another_size_and_with_numbers_that_have_no_name(tmp_path: Path) -> None:
    for number, shape in enumerate(((40, 40), (40, 39), (40, 40))):
        draw(tmp_path / "images" / f"{number}.png", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full(shape, number, dtype=np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "masks" / "classes.txt").write_text("sky\nroad\n")
    found = faults(f"masks:{tmp_path / 'images'},{tmp_path / 'masks'}")
    assert found[0] == ("1.png", "its mask is 39 x 40, but the picture 40 x 40")
    assert found[1][0] == "2.png" and "class number 2, but only 0 to 1 are named" in found[1][1] and len(found) == 2


def test_outlines_that_are_none(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png", 0)
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9]]}
    told = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "told.json").write_text(json.dumps(told))
    ((key, reason),) = faults(f"coco:{tmp_path / 'images'},{tmp_path / 'told.json'}")
    assert key == "a.png" and "expected numbers x, y" in reason


def test_a_second_picture_that_does_not_decode(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "d-0-0-img0.png", 0)
    (tmp_path / "images" / "d-0-0-img1.png").write_bytes(b"<html>")
    (tmp_path / "told.json").write_text('{"identifier": "d-0-0-1", "sentence": "a", "label": "True"}\n')
    assert faults(f"nlvr2:{tmp_path / 'images'},{tmp_path / 'told.json'}") == [("d-0-0-1", "not an image")]


def test_clips_without_frames_and_torn_ones(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    file = spans(tmp_path / "set")
    row = json.loads(file.read_text())
    row["clip"].append({"clip_id": "v1.2", "span": [1.15, 1.19]})
    file.write_text(f"{json.dumps(row)}\n")
    assert faults(f"video:{file}") == [("v1.2", "no frame between 1.15 s and 1.19 s")]
    films = tmp_path / "films"
    write(films / "a.avi", [20] * 200)
    content = write(films / "b.avi", [20] * 200).read_bytes()
    middle = len(content) // 4
    (films / "b.avi").write_bytes(content[:middle] + bytes(len(content) // 4) + content[middle + len(content) // 4 :])
    assert len(VideoFile(films / "a.avi").times()) == 200
    assert [key for key, _ in faults(f"video:{films}")] == ["b.avi"]
