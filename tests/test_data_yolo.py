"""YOLO's folders: boxes, outlines and points in pixels, splits and classes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onestage.data import open_source
from onestage.data.yolo import labels_of
from onestage.roles import BadSample
from onestage.spec import UserError

NAMES = "names: {0: cat, 1: dog}\n"


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 40, 3), dtype=np.uint8)).save(path)


def made(root: Path, labels: str = "1 0.5 0.5 0.25 0.5\n", yaml: str = NAMES) -> str:
    """Two images, the second with nothing in it; what a user types for them."""
    picture(root / "images" / "train" / "a.png")
    picture(root / "images" / "train" / "deep" / "b.png", 1)
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text(labels)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\n{yaml}")
    return f"yolo:{root}"


def test_boxes_are_shares_of_the_sides(tmp_path: Path) -> None:
    source = open_source(made(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0 0.0 1 1e-1 0\n"))
    assert source.box_classes == ("cat", "dog") and not source.has_masks and not source.has_texts
    first, second = source[0], source[1]
    assert first.key == "images/train/a.png" and second.key == "images/train/deep/b.png"
    assert first.boxes == ((15, 5, 25, 15), (-2, 20, 2, 20)) and first.box_labels == (1, 0)
    assert first.instances is None and (second.boxes, second.box_labels) == ((), ())
    assert first.picture.size == (40, 20)


def test_outlines_and_points(tmp_path: Path) -> None:
    sample = open_source(made(tmp_path / "one", "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n"))[0]
    assert sample.boxes == ((10, 5, 30, 15),) and sample.instances is not None
    expected = np.zeros((20, 40), dtype=bool)
    expected[5:15, 10:30] = True
    assert np.array_equal(sample.instances.decode()[0], expected)
    told = open_source(made(tmp_path / "two", "0 .5 .5 1 1 0.1 0.5 2 0 0 0\n", f"{NAMES}kpt_shape: [2, 3]\n"))
    assert told[0].boxes == ((0, 0, 40, 20),) and len(told.keypoints) == 2
    assert told[0].keypoints == (((4, 10, 2), (0, 0, 0)),)
    flat = open_source(made(tmp_path / "three", "0 .5 .5 1 1 0.1 0.5 0 0\n", f"{NAMES}kpt_shape: [2, 2]\n"))
    assert flat[0].keypoints == told[0].keypoints


def test_data_yaml_its_splits_and_lists(tmp_path: Path) -> None:
    made(tmp_path / "set")
    text = f"path: ../set\ntrain: [images/train]\nval: list.txt\ntest: ../images/train\n{NAMES}"
    (tmp_path / "set" / "list.txt").write_text("./images/train/a.png\n")
    (tmp_path / "set" / "other.yaml").write_text(text)
    for split, count in ((",train", 2), ("", 2), (",val", 1), (",test", 2)):
        source = open_source(f"yolo:{tmp_path / 'set' / 'other.yaml'}{split}")
        assert len(source) == count and source[0].key == "images/train/a.png" and source[0].boxes
    assert labels_of("images/x/images/a.b.jpg") == "images/x/labels/a.b.txt" and labels_of("a.jpg") == "a.txt"


def test_a_path_from_elsewhere_and_lists_in_other_folders(tmp_path: Path) -> None:
    """As YOLO's own data sets have them: `path: coco8`, and `./` for what lies beside a list."""
    made(tmp_path)
    (tmp_path / "data.yaml").write_text(f"path: coco8\ntrain: images/train\nval: images/val.txt\ntest:\n{NAMES}")
    (tmp_path / "images" / "val.txt").write_text("./train/a.png\nimages/train/deep/b.png\n\n")
    assert open_source(f"yolo:{tmp_path}")[0].boxes
    source = open_source(f"yolo:{tmp_path},val")
    assert [source[n].key for n in range(2)] == ["images/train/a.png", "images/train/deep/b.png"] and source[0].boxes
    with pytest.raises(UserError, match="no folder of images under 'test'"):
        open_source(f"yolo:{tmp_path},test")
    (tmp_path / "data.yaml").write_text(f"path: coco8\ntrain: elsewhere\n{NAMES}")
    with pytest.raises(UserError, match="path 'coco8': there is no folder"):
        open_source(f"yolo:{tmp_path}")


def test_a_folder_without_data_yaml(tmp_path: Path) -> None:
    text = made(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(UserError, match=r"nothing names the classes: no data.yaml and no classes.txt in "):
        open_source(text)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for given in (text, f"{text},train"):
        assert open_source(given)[0].box_labels == (1,)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 .5 .5 .1 .1", "a.txt, line 2: class 2, but only 0 to 1 are named"),
        ("nan .5 .5 .1 .1", "class nan"),
        ("0.5 .5 .5 .1 .1", "class 0.5"),
        ("0 .5 .5 .1", "3 numbers after the class"),
        ("0 .5 .5 .1 .1 .1 .1 .1", "7 numbers after the class"),
        ("0 .5 .5 .1 x", "are not numbers"),
        ("0 .5 .5 .1 inf", "are not numbers"),
        ("0 120 40 12 12", "is no share of a side"),
    ],
)
def test_a_broken_line_makes_a_bad_sample(line: str, said: str, tmp_path: Path) -> None:
    source = open_source(made(tmp_path, f"0 .5 .5 .1 .1\n{line}\n"))
    with pytest.raises(BadSample, match=said):
        _ = source[0]
    assert source[1].boxes == ()


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("names: [", "not valid YAML"),
        ("names: {0: a, 2: b}", "expected a list of class names"),
        ("names: []", "expected a list of class names"),
        ("nc: 3", "names is None"),
        (f"{NAMES}path: nowhere\ntrain: none", "path 'nowhere': there is no folder"),
        (f"{NAMES}kpt_shape: [17, 5]", "kpt_shape"),
        (f"{NAMES}train: none", "none: there is no such folder or list"),
        (f"{NAMES}train: labels", "no images in"),
        (f"{NAMES}train: bare", "no image has labels; those of bare/z.png would be .*bare/z.txt"),
    ],
)
def test_mistakes_in_data_yaml(yaml: str, said: str, tmp_path: Path) -> None:
    picture(tmp_path / "bare" / "z.png")
    with pytest.raises(UserError, match=said):
        open_source(made(tmp_path, yaml=yaml))


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (",test", r"no folder of images under 'test' .there are: train, val, names."),
        ("/nothing", "there is no such folder or file; expected yolo:"),
    ],
)
def test_mistakes_in_what_is_typed(rest: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        open_source(made(tmp_path) + rest)


def test_the_fingerprint(tmp_path: Path) -> None:
    text = made(tmp_path)
    one = open_source(text).fingerprint()
    assert open_source(text).fingerprint() == one
    picture(tmp_path / "images" / "train" / "c.png")
    assert open_source(text).fingerprint() != one
