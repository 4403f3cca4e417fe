"""COCO's files: captions, instances, keypoints and panoptic segments, real and written here, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onestage.data import open_source
from onestage.roles import VOID, BadSample, Sample
from onestage.spec import UserError
from typed import draw

# pycocotools 2.0.11 passes NumPy 2 an array in its old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "keypoints": ["nose", "tail"]}]
THING = {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4.5], "iscrowd": 0, "area": 9.5}


def written(root: Path, **told: Any) -> str:
    """Two images, the second without annotations, and a file; what a user types for them."""
    images = [{"id": 10, "file_name": "a.png", "width": 40, "height": 40}, {"id": 11, "file_name": "deep/b.png"}]
    for number, image in enumerate(images):
        draw(root / "images" / image["file_name"], number)
    known = {"images": images, "annotations": [], "categories": CATEGORIES} | told
    (root / "told.json").write_text(json.dumps(known))
    return f"coco:{root / 'images'},{root / 'told.json'}"


def test_captions_of_real_photographs(test_data: Path) -> None:
    root = test_data / "coco"
    source = open_source(f"coco:{root / 'images' / 'val2017'},{root / 'annotations' / 'captions_val2017.json'}")
    samples = [source[index] for index in range(len(source))]
    assert len(samples) == 79 and sum(len(sample.texts) for sample in samples) == 395
    found = {sample.key: sample for sample in samples}["000000000139.jpg"]
    assert "A woman stands in the dining area at the table." in found.texts
    assert found.picture.size == (640, 426) and found.boxes == () and found.instances is None
    assert source.has_texts and not source.has_masks and not source.has_labels and source.box_classes == ()
    assert source.keeps_captions == {"crop", "colour"}


@pytest.mark.parametrize("kind", ["instances", "person_keypoints"])
def test_things_of_real_photographs_are_those_of_pycocotools(kind: str, test_data: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    root = test_data / "coco"
    file = root / "annotations" / f"{kind}_val2017.json"
    told, source = tools.COCO(str(file)), open_source(f"coco:{root / 'images' / 'val2017'},{file}")
    ids = {image["file_name"]: image["id"] for image in told.loadImgs(told.getImgIds())}
    names = {category["id"]: category["name"] for category in told.loadCats(told.getCatIds())}
    assert source.box_classes == tuple(names[number] for number in sorted(names))
    crowds = 0
    for index in range(len(source)):
        sample = source[index]
        expected = told.loadAnns(told.getAnnIds(imgIds=[ids[sample.key]]))
        assert len(sample.boxes) == len(expected) == len(sample.box_areas)
        for number, one in enumerate(expected):
            left, top, width, height = one["bbox"]
            assert sample.boxes[number] == pytest.approx((left, top, left + width, top + height))
            assert source.box_classes[sample.box_labels[number]] == names[one["category_id"]]
            assert (sample.box_crowds[number], sample.box_areas[number]) == (one["iscrowd"], one["area"])
            if kind == "person_keypoints":
                assert [value for point in sample.keypoints[number] for value in point] == one["keypoints"]
        if (expected and index % 4 == 0) or any(sample.box_crowds):
            assert sample.instances is not None
            masks = np.stack([told.annToMask(one) for one in expected]).astype(bool)
            assert np.array_equal(sample.instances.decode(), masks)
        crowds += sum(sample.box_crowds)
    assert crowds == (5 if kind == "instances" else 1)
    assert len(source.keypoints) == (17 if kind == "person_keypoints" else 0)


def panoptic(root: Path, **changes: Any) -> tuple[str, np.ndarray]:
    """Two segments whose numbers need all three bytes, and a pixel of none."""
    numbers = np.full((40, 40), 70000)
    numbers[:, 20:] = 300
    numbers[0, 0] = 0
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
    (root / "told").mkdir(parents=True)
    Image.fromarray(colours).save(root / "told" / "a.png")
    segments = [
        {"id": 300, "category_id": 3, "bbox": [20, 0, 20, 40], "iscrowd": 0, "area": 800},
        {"id": 70000, "category_id": 7, "bbox": [0, 0, 20, 40], "iscrowd": 1, "area": 799},
    ]
    row = {"image_id": 10, "file_name": "a.png", "segments_info": segments} | changes
    return written(root, annotations=[row]), numbers


def test_panoptic_segments(tmp_path: Path) -> None:
    text, numbers = panoptic(tmp_path)
    source = open_source(text)
    assert source.has_masks and source.mask_classes == source.box_classes == ("cat", "dog")
    sample = source[0]
    assert (sample.box_labels, sample.box_crowds, sample.box_areas) == ((0, 1), (False, True), (800, 799))
    assert sample.boxes[1] == (0, 0, 20, 40)
    assert sample.mask is not None and sample.instances is not None
    expected = np.where(numbers == 300, 0, np.where(numbers == 70000, 1, VOID))
    assert np.array_equal(sample.mask.decode(), expected)
    assert np.array_equal(sample.instances.decode(), np.stack([numbers == 300, numbers == 70000]))
    (tmp_path / "told").rename(tmp_path / "pngs")
    assert open_source(f"{text},{tmp_path / 'pngs'}")[0].box_labels == (0, 1)
    with pytest.raises(UserError, match=r"told is no folder; name theirs: coco:IMAGES"):
        open_source(text)


def test_a_segment_that_is_not_listed_is_a_bad_sample(tmp_path: Path) -> None:
    text, _ = panoptic(tmp_path, segments_info=[{"id": 300, "category_id": 3, "bbox": [20, 0, 20, 40]}])
    sample = open_source(text)[0]
    assert sample.mask is not None
    with pytest.raises(BadSample, match="segment 70000, which is not listed"):
        sample.mask.decode()


def test_an_image_without_annotations_is_a_sample_and_ids_are_put_in_order(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, annotations=[THING, {**THING, "image_id": 99}]))
    assert source.box_classes == ("cat", "dog") and source.keypoints == ("nose", "tail")
    first, second = source[0], source[1]
    assert (first.boxes, first.box_labels, first.box_areas) == (((1, 2, 4, 6.5),), (1,), (9.5,))
    assert (second.key, second.boxes, second.instances) == ("deep/b.png", (), None)
    assert len(open_source(written(tmp_path, annotations=None))) == 2
    assert first.instances is None, "without a segmentation there is no mask"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": [1, 2, 3]}, r"annotation 1, bbox: \[1, 2, 3\] are not 4 numbers"),
        ({"bbox": [1, 2, 3, None]}, "are not 4 numbers"),
        ({"bbox": [1, 2, 3, 10**400]}, "are not 4 numbers"),
        ({"category_id": 5}, "category_id 5 is none of the categories"),
        ({"category_id": []}, r"category_id \[\] is none"),
        ({"keypoints": [1, 2]}, "keypoints"),
        ({"area": "x"}, "area"),
    ],
)
def test_a_broken_annotation_makes_a_bad_sample_of_its_image_alone(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    source = open_source(written(tmp_path, annotations=[{**THING, **changes}]))
    with pytest.raises(BadSample, match=said):
        _ = source[0]
    assert isinstance(source[1], Sample)


def test_another_size_than_the_annotated_one_is_a_bad_sample(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, annotations=[THING]))
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.png")
    with pytest.raises(BadSample, match="it is 30 x 20, but was annotated as 40 x 40"):
        _ = source[0]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"images": {}}, "no list of objects under 'images' .*there are: images, annotations, categories"),
        ({"images": []}, "describes no image"),
        ({"images": [{"id": 1}]}, r"image 0: file_name is None \(there are: id\)"),
        ({"images": [{"file_name": "a.png"}]}, "image 0: id is None"),
        ({"images": [{"id": 1, "file_name": "../a.png"}]}, "leads out of the folder"),
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2}, "its id 1 is another image's"),
        ({"images": [{"id": 1, "file_name": "none.png"}]}, "none of the 1 files that it names is in .*none.png"),
        ({"annotations": [3]}, "no list of objects under 'annotations'"),
        ({"annotations": [{"image_id": 10, "text": "a"}]}, r"no caption, bbox or segments_info.*image_id, text"),
        ({"annotations": [{"caption": "a"}]}, "image_id is None"),
        ({"categories": [{"id": "x", "name": "a"}]}, "id is 'x'"),
    ],
)
def test_mistakes_in_the_file(told: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        open_source(written(tmp_path, **told))


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("images", r"expected coco:IMAGES,ANNOTATIONS.json"),
        ("images,none.json", "none.json: there is no such file"),
        ("none,told.json", "none: there is no such folder"),
        ("images,images", "images: a folder, not a file"),
        ("told.json,told.json", "told.json: a file, not a folder"),
        ("images,torn.json", "torn.json: not valid JSON"),
        ("images,list.json", "no list of objects under 'images' .it is a list"),
    ],
)
def test_mistakes_in_what_is_typed(rest: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    (tmp_path / "torn.json").write_text('{"images": [')
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        open_source(f"coco:{rest}")


def test_the_fingerprint_and_commas(tmp_path: Path) -> None:
    text = written(tmp_path / "red, green", annotations=[THING])
    one = open_source(text)
    assert one.fingerprint() == open_source(text).fingerprint() and len(one) == 2
    written(tmp_path / "red, green", annotations=[{**THING, "area": 3}])
    assert open_source(text).fingerprint() != one.fingerprint()
