"""Whatever a sample may hold goes into shards and comes out again: masks, outlines, points, pairs and clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import spans, write
from onestage.data import Scenes, open_source
from onestage.data.pack import pack
from onestage.data.scene_sources import SceneClips, ScenePairs
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError
from shards import png, write_tar

SAID = ("mask_classes", "box_classes", "keypoints", "verdicts", "has_masks", "has_questions", "has_clips")


def repacked(source: Source, out: Path, size: int | None = None) -> Source:
    packed = pack(source, out, size, 1.0, 0, lambda done, total: None)
    assert packed.bad == 0
    return open_source(f"{out}/*.tar")


def same_fields(one: Sample, two: Sample) -> None:
    """All that is plain, and the pixels of what is decoded."""
    for name in ("texts", "boxes", "box_labels", "box_crowds", "box_areas", "keypoints", "questions", "statement"):
        assert getattr(one, name) == getattr(two, name), name
    for name in ("picture", "second", "mask", "instances"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        assert a is None or np.array_equal(a.decode(), b.decode()), name


def same_source(one: Source, two: Source) -> None:
    assert len(one) == len(two) and {name: getattr(one, name) for name in SAID} == {
        name: getattr(two, name) for name in SAID
    }
    assert one.keeps_captions == two.keeps_captions and one.reads == two.reads
    for index in range(len(one)):
        same_fields(one[index], two[index])


@pytest.mark.parametrize("kind", ["instances", "person_keypoints"])
def test_things_of_real_photographs(kind: str, test_data: Path, tmp_path: Path) -> None:
    source = open_source(
        f"coco:{test_data}/coco/images/val2017,{test_data}/coco/annotations/{kind}_val2017.json",
    )
    assert any(source[index].instances is not None for index in range(len(source)))
    same_source(source, repacked(source, tmp_path / "out"))


def test_masks_and_questions_of_scenes(tmp_path: Path) -> None:
    source = Scenes(length=6)
    same_source(source, repacked(source, tmp_path / "out"))


@pytest.mark.parametrize("kind", [ScenePairs, SceneClips])
def test_pairs_and_clips_of_scenes(kind: type[ScenePairs] | type[SceneClips], tmp_path: Path) -> None:
    source = kind(length=4)
    again = repacked(source, tmp_path / "out")
    same_source(source, again)
    for index in range(4):
        one, two = source[index].clip, again[index].clip
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.times() == two.times() and np.array_equal(one.decode(one.times()), two.decode(two.times()))


def test_what_is_brought_down_is_brought_down_together(tmp_path: Path) -> None:
    source = Scenes(length=4, size=96)
    small = repacked(source, tmp_path / "out", size=48)
    for index in range(4):
        one, two = source[index], small[index]
        assert two.picture.size == (48, 48) and one.instances and two.instances and two.mask
        assert np.allclose(two.boxes, np.array(one.boxes) / 2)
        shown = two.instances.decode()
        assert shown.shape == (len(one.boxes), 48, 48) and two.mask.decode().shape == (48, 48)
        for box, mask, whole in zip(two.boxes, shown, one.instances.decode(), strict=True):
            rows, columns = np.nonzero(mask)
            assert box[0] - 1 <= columns.min() and columns.max() <= box[2] and box[1] - 1 <= rows.min()
            assert mask.sum() == pytest.approx(whole.sum() / 4, rel=0.25)


def test_pairs_and_statements(tmp_path: Path) -> None:
    for name in ("a-0-img0", "a-0-img1", "b-0-img0", "b-0-img1"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (ord(name[0]), ord(name[-1]), 9)).save(tmp_path / "images" / f"{name}.png")
    rows = [
        {"identifier": "a-0-1", "sentence": "both are dark", "label": "True"},
        {"identifier": "b-0-0", "sentence": "one is light"},
    ]
    (tmp_path / "told.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = open_source(f"nlvr2:{tmp_path}/images,{tmp_path}/told.json")
    again = repacked(source, tmp_path / "out")
    same_source(source, again)
    assert [again[n].statement.verdict for n in range(2)] == [1, None] and again.verdicts == ("false", "true")
    flickr = {"Flickr30K_ID": "a-0-img0", "sentence1": "a picture", "sentence2": "it is dark", "gold_label": "neutral"}
    (tmp_path / "ve.jsonl").write_text(json.dumps(flickr | {"pairID": "1"}) + "\n")
    source = open_source(f"snli-ve:{tmp_path}/images,{tmp_path}/ve.jsonl")
    same_source(source, repacked(source, tmp_path / "ve"))


def test_clips(tmp_path: Path) -> None:
    """Whole videos as they are, spans as `data cut` writes them, and folders of frames as frames."""
    pytest.importorskip("av", reason="PyAV is not installed")
    write(tmp_path / "whole" / "a.mp4")
    source = open_source(f"video:{tmp_path}/whole")
    again = repacked(source, tmp_path / "out")
    same_source(source, again)
    one, two = source[0].clip, again[0].clip
    assert one is not None and two is not None and one.times() == two.times() and one.middle() == two.middle()
    assert np.array_equal(one.decode(one.times()), two.decode(two.times()))
    source = open_source(f"video:{spans(tmp_path / 'spans')}".replace("video:", f"video:{tmp_path}/spans/videos,"))
    again = repacked(source, tmp_path / "cut")
    for index, frames in enumerate((3, 5)):
        one, two = source[index].clip, again[index].clip
        assert one is not None and two is not None and len(two.times()) == len(one.times()) == frames
        near = two.decode(two.times()).astype(float) - one.decode(one.times())
        assert abs(near).mean() < 3 and two.times()[0] == 0


def test_frames(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "frames" / "x").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (40 * number, 9, 9)).save(tmp_path / "frames" / "x" / f"{number}.png")
    source = open_source(f"video:{tmp_path}/frames,fps=4")
    again = repacked(source, tmp_path / "out")
    one, two = source[0].clip, again[0].clip
    assert one is not None and two is not None and two.times() == one.times() == (0.0, 0.25, 0.5, 0.75, 1.0)
    for times in (one.times(), (0.1, 0.3, 0.3, 1.1)):
        assert np.array_equal(one.decode(times, 10), two.decode(times, 10))
    assert two.middle() == one.middle() and again.has_clips
    with pytest.raises(BadSample, match="ends at 1 s"):
        two.decode([9.0])


def test_shards_of_others_keep_their_names(tmp_path: Path) -> None:
    """A mask that comes before its picture is no picture, and lists that are no lists are none."""
    mask = np.array([[0, 3], [255, 1]] * 3, dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "m.png")
    told = {"boxes": [[0, 0, 1, 1]], "keypoints": [[[1, 2, 7]]], "box_areas": ["x"], "statement": ["a", "b"]}
    members = [
        ("a.seg.png", (tmp_path / "m.png").read_bytes()),
        ("a.png", png(7)),
        ("a.json", json.dumps(told).encode()),
        ("b.frames.0000.png", png(7)),
        ("b.png", png(7)),
    ]
    write_tar(tmp_path / "a.tar", members)
    source = open_source(f"{tmp_path}/a.tar")
    sample = source[0]
    assert sample.mask is not None and np.array_equal(sample.mask.decode(), mask) and sample.picture.size == (6, 6)
    assert (sample.keypoints, sample.box_areas, sample.statement, sample.instances) == ((), (), None, None)
    with pytest.raises(BadSample, match="1 frames and 0 times"):
        source[1]
    (tmp_path / "source.json").write_text('{"box_classes": [1]}')
    with pytest.raises(UserError, match="does not say what its shards hold"):
        open_source(f"{tmp_path}/a.tar")
