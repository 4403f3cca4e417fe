"""Folders of masks: pairs, class numbers as written, what is void, and what is refused or counted as bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loading import cut
from onestage.data import open_source
from onestage.data.masks import MaskedFolder
from onestage.data.scene import semantic_mask
from onestage.roles import VOID, BadSample, Mask
from onestage.spec import UserError
from onestage.views import Resize
from typed import draw

NUMBERS = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40) % 5


def put(path: Path, numbers: np.ndarray = NUMBERS) -> Path:
    """A grey mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)
    return path


def pair(root: Path, key: str, numbers: np.ndarray = NUMBERS) -> None:
    draw(root / "images" / f"{key}.jpg", 0)
    put(root / "masks" / f"{key}.png", numbers)


def source(root: Path, rest: str = "") -> MaskedFolder:
    made = open_source(f"masks:{root / 'images'},{root / 'masks'}{rest}")
    assert isinstance(made, MaskedFolder)
    return made


def decoded(mask: Mask | None) -> np.ndarray:
    assert mask is not None
    return mask.decode()


def test_pairs_are_found_by_name_in_sub_folders_too(tmp_path: Path) -> None:
    for key in ("a", "deep/b", "c.2"):
        pair(tmp_path, key)
    made = source(tmp_path)
    assert [made[number].key for number in range(len(made))] == ["a.jpg", "c.2.jpg", "deep/b.jpg"]
    assert all(np.array_equal(decoded(made[number].mask), NUMBERS) for number in range(3))
    assert made.has_masks and not made.has_labels and made.mask_classes == ()
    assert made[0].picture.size == (40, 40) and made[0].picture.decode().shape == (40, 40, 3)


def test_a_palette_is_read_by_its_numbers_and_every_grey_depth_as_it_is(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    palette = Image.fromarray(NUMBERS).convert("P")
    palette.putdata(NUMBERS.flatten().tolist())
    palette.putpalette([channel for number in range(256) for channel in (255 - number, 7, number // 2)])
    palette.save(tmp_path / "masks" / "a.png")
    assert np.array_equal(decoded(source(tmp_path)[0].mask), NUMBERS)
    Image.fromarray(NUMBERS.astype(np.uint16)).save(tmp_path / "masks" / "a.png")
    assert np.array_equal(decoded(source(tmp_path)[0].mask), NUMBERS)
    Image.fromarray(NUMBERS > 2).save(tmp_path / "masks" / "a.png")
    assert np.array_equal(decoded(source(tmp_path)[0].mask), NUMBERS > 2)


@pytest.mark.parametrize("file", ["masks/classes.txt", "classes.txt", "class_names.json"])
def test_names_and_what_is_void(file: str, tmp_path: Path) -> None:
    pair(tmp_path, "a")
    names = ["sky", "road", "car", "Void", "tree"]
    (tmp_path / file).write_text(json.dumps(names) if file.endswith("json") else "\n".join(names) + "\n")
    made = source(tmp_path, ",void=0")
    assert made.mask_classes == tuple(names)
    expected = [[VOID if number in {0, 3} else int(number) for number in row] for row in NUMBERS]
    assert decoded(made[0].mask).tolist() == expected


def test_a_number_without_a_name_is_a_bad_sample(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(BadSample, match=r"class number 2, but only 0 to 1 are named; .*void=N"):
        decoded(source(tmp_path)[0].mask)
    named = decoded(source(tmp_path, ",void=2,void=3,void=4")[0].mask)
    assert set(np.unique(named).tolist()) == {0, 1, VOID}


def test_what_lacks_its_partner_is_a_bad_sample_that_says_so(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    draw(tmp_path / "images" / "b.png", 1)
    put(tmp_path / "masks" / "c.png")
    made = source(tmp_path)
    assert len(made) == 3
    with pytest.raises(BadSample, match=r"image b\.png has no mask b\.png in .*masks"):
        made[1]
    with pytest.raises(BadSample, match=r"mask c\.png has no image c\.\* in .*images"):
        made[2]


def test_masks_that_are_no_masks_are_bad_samples(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    mask = tmp_path / "masks" / "a.png"
    draw(mask, 0)
    with pytest.raises(BadSample, match=r"colours \(RGB\), not class numbers"):
        decoded(source(tmp_path)[0].mask)
    Image.fromarray(np.full((40, 40), 700, dtype=np.uint16)).save(mask)
    with pytest.raises(BadSample, match="class number 700; numbers go up to 254"):
        decoded(source(tmp_path)[0].mask)
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(BadSample):
        decoded(source(tmp_path)[0].mask)


def test_masks_among_the_images(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", 0)
    put(tmp_path / "a.png")
    assert [open_source(f"masks:{tmp_path},{tmp_path}")[0].key] == ["a.jpg"]
    put(tmp_path / "masks" / "a.png")
    (tmp_path / "a.png").unlink()
    made = open_source(f"masks:{tmp_path},{tmp_path / 'masks'}")
    assert len(made) == 1 and made[0].key == "a.jpg"


def test_a_comma_in_the_name_of_a_folder(tmp_path: Path) -> None:
    pair(tmp_path / "red, green", "a")
    assert len(source(tmp_path / "red, green", ",void=3")) == 1


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "expected masks:IMAGES,MASKS"),
        ("images", "expected masks:IMAGES,MASKS"),
        ("images,", "expected masks:IMAGES,MASKS"),
        ("images,masks,other", "expected masks:IMAGES,MASKS"),
        ("images,none", "none: there is no such folder"),
        ("images,images/a.jpg", "a.jpg: a file, not a folder"),
        ("images,masks,void=x", "void=x is not a class number"),
        ("images,masks,void=256", "void=256 is not a class number"),
        ("images,empty", "empty: no masks in it"),
        ("empty,masks", "empty: no images in it"),
        ("images,other", r"no mask is named as an image of images \(masks: z.png; images: a.jpg\)"),
        ("twice,masks", "twice: a.jpg and a.png differ by their endings alone"),
        ("images,named", "names 'sky' twice"),
    ],
)
def test_mistakes(rest: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path, "a")
    (tmp_path / "empty").mkdir()
    put(tmp_path / "other" / "z.png")
    draw(tmp_path / "twice" / "a.jpg", 0)
    draw(tmp_path / "twice" / "a.png", 0)
    put(tmp_path / "named" / "a.png")
    (tmp_path / "named" / "classes.txt").write_text("sky\nvoid\nvoid\nsky\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        open_source(f"masks:{rest}")


def test_the_fingerprint_changes_with_the_files_the_names_and_the_void(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    prints = [source(tmp_path).fingerprint(), source(tmp_path, ",void=4").fingerprint()]
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    prints.append(source(tmp_path).fingerprint())
    pair(tmp_path, "b")
    prints.append(source(tmp_path).fingerprint())
    put(tmp_path / "masks" / "b.png", np.random.default_rng(0).integers(0, 5, (40, 40), dtype=np.uint8))
    prints += [source(tmp_path).fingerprint()] * 2
    assert len(set(prints)) == 5


def test_scenes_have_the_mask_of_their_digits() -> None:
    made = open_source("scenes:test")
    assert made.has_masks and made.mask_classes[:3] == ("background", "zero", "one") and len(made.mask_classes) == 11
    for index in (0, 7):
        mask = decoded(made[index].mask)
        assert np.array_equal(mask, semantic_mask(made.scene(index), 64))  # pyright: ignore[reportAttributeAccessIssue]
        assert mask[np.asarray(made[index].picture.decode()).max(axis=2) < 60].max() == 0


@pytest.mark.parametrize(("width", "height", "size"), [(48, 36, 12), (31, 50, 17), (20, 20, 20), (9, 200, 6)])
def test_a_mask_has_the_geometry_of_the_evaluation_view(width: int, height: int, size: int) -> None:
    """Each pixel of the view is the source pixel under its centre; the picture's own view agrees about where."""
    numbers = np.random.default_rng(0).integers(0, 9, (height, width), dtype=np.uint8)
    view = Resize(size=size)
    plan = view.plan(np.random.default_rng(0), width, height)
    got = view.resized_mask(numbers, plan)
    short = min(width, height)
    rows, columns = (int(size * side / short) for side in (height, width))
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    margin = [max(0, start - 4 * short) for start in plan.box[:2]]
    assert margin == [0, 0] or (height, width) == (200, 9)
    if margin == [0, 0]:
        for y in range(size):
            for x in range(size):
                row, column = int((y + top + 0.5) * height / rows), int((x + left + 0.5) * width / columns)
                assert got[y, x] == numbers[row, column], (y, x)
    flat = np.zeros((height, width), dtype=np.uint8)
    flat[plan.box[0] : plan.box[0] + short // 2] = 1
    picture = cut(view, np.repeat(flat[:, :, None] * 200, 3, axis=2), plan)[0]
    mask = view.resized_mask(flat, plan)
    assert ((picture > 100) == (mask == 1)).float().mean() > 0.9


def test_street_photographs(test_data: Path) -> None:
    root = test_data / "camvid"
    made = open_source(f"masks:{root / 'images' / 'val'},{root / 'masks' / 'val'},void=11")
    assert len(made) == 34
    found = {int(number) for index in (0, 20) for number in np.unique(decoded(made[index].mask))}
    assert VOID in found and found - {VOID} <= set(range(11)) and len(found) > 6
    sample = made[3]
    assert decoded(sample.mask).shape == (360, 480) and sample.picture.size == (480, 360)
    assert (root / "masks" / "val" / f"{sample.key[:-4]}.png").exists()
