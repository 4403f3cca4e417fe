"""PASCAL VOC's layout: boxes, splits, masks, and XML that is not to be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onestage.data import open_source
from onestage.roles import VOID, BadSample
from onestage.spec import UserError

DOG = "<object><name>dog</name><difficult>1</difficult><bndbox>{}</bndbox></object>"
PLACE = "<xmin>1</xmin><ymin>3</ymin><xmax>40</xmax><ymax>20</ymax>"
SIZE = "<size><width>40</width><height>20</height><depth>3</depth></size>"


def xml(root: Path, key: str, inside: str) -> None:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{key}.xml").write_text(f"<annotation><filename>x.jpg</filename>{inside}</annotation>")


def made(root: Path) -> str:
    """Three images: a dog and a person with a head, nothing, and one that is in no split."""
    (root / "JPEGImages").mkdir(parents=True)
    for number, key in enumerate(("a", "b", "c")):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{key}.jpg")
        xml(root, key, SIZE)
    head = f"<part><name>head</name><bndbox>{PLACE}</bndbox></part>"
    person = f"<object>{head}<name>person</name><bndbox>{PLACE.replace('>40<', '>8.5<')}</bndbox></object>"
    xml(root, "a", SIZE + DOG.format(PLACE) + person)
    for split, lines in {"Main/train": "b\na\n", "Main/dog_train": "a  1\nb -1\n", "Segmentation/val": "a\n"}.items():
        (root / "ImageSets" / split).parent.mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / f"{split}.txt").write_text(lines)
    return f"voc:{root}"


def test_boxes_begin_at_one_and_include_their_last_pixel(tmp_path: Path) -> None:
    source = open_source(made(tmp_path))
    assert len(source) == 3 and len(source.box_classes) == 20 and not source.has_masks
    sample = source[0]
    assert sample.key == "a.jpg" and sample.boxes == ((0, 2, 40, 20), (0, 2, 8.5, 20))
    assert [source.box_classes[label] for label in sample.box_labels] == ["dog", "person"]
    assert sample.box_crowds == (True, False)
    assert source[1].boxes == () and sample.picture.size == (40, 20)


def test_splits(tmp_path: Path) -> None:
    text = made(tmp_path)
    for split, keys in {"train": ["b.jpg", "a.jpg"], "dog_train": ["a.jpg"], "Segmentation/val": ["a.jpg"]}.items():
        source = open_source(f"{text},{split}")
        assert [source[index].key for index in range(len(source))] == keys
    for lines, said in (
        (b"\xff", "not UTF-8"),
        (b"a\0", "a zero byte"),
        (b"../a", "leads out of the folder"),
        (b"", "lists no"),
    ):
        (tmp_path / "ImageSets" / "Main" / "odd.txt").write_bytes(lines)
        with pytest.raises(UserError, match=said):
            open_source(f"{text},odd")
    (tmp_path / "ImageSets" / "Main" / "odd.txt").unlink()
    with pytest.raises(UserError, match=r"no split .*test.txt \(there are: dog_train, train\)"):
        open_source(f"{text},test")


def test_masks_count_where_every_image_has_one(tmp_path: Path) -> None:
    text = made(tmp_path)
    numbers = np.zeros((20, 40), dtype=np.uint8)
    numbers[5:, :10], numbers[:, 39] = 12, VOID
    (tmp_path / "SegmentationClass").mkdir()
    palette = Image.fromarray(numbers).convert("P")
    palette.putdata(numbers.flatten().tolist())
    palette.save(tmp_path / "SegmentationClass" / "a.png")
    assert not open_source(text).has_masks
    source = open_source(f"{text},Segmentation/val")
    assert source.has_masks and source.mask_classes[12] == "dog" and len(source.mask_classes) == 21
    mask = source[0].mask
    assert mask is not None and np.array_equal(mask.decode(), numbers)


def test_objects_have_outlines_by_their_numbers(tmp_path: Path) -> None:
    source = open_source(made(tmp_path))
    assert source[0].instances is None
    numbers = np.zeros((20, 40), dtype=np.uint8)
    numbers[2:9, 3:8], numbers[10:19, 20:30], numbers[9, :] = 1, 2, VOID
    (tmp_path / "SegmentationObject").mkdir()
    Image.fromarray(numbers).save(tmp_path / "SegmentationObject" / "a.png")
    again = open_source(f"voc:{tmp_path}")
    sample = again[0]
    assert again.fingerprint() != source.fingerprint() and again[1].instances is None
    assert sample.instances is not None and np.array_equal(sample.instances.decode(), [numbers == 1, numbers == 2])
    numbers[0, 0] = 3
    Image.fromarray(numbers).save(tmp_path / "SegmentationObject" / "a.png")
    with pytest.raises(BadSample, match=r"a\.png has object 3, but 2 are annotated"):
        sample.instances.decode()


def test_a_whole_annotation_as_the_challenge_has_it(tmp_path: Path) -> None:
    """Pose, truncation and occlusion are passed over, numbers may be broken, and parts have names of their own."""
    source = open_source(made(tmp_path))
    head = f"<part><name>hand</name><bndbox>{PLACE}</bndbox></part>"
    about = "<folder>VOC2012</folder><source><database>The VOC2008 Database</database></source><segmented>0</segmented>"
    box = "<xmax>33.5</xmax><xmin>2</xmin><ymax>19</ymax><ymin>1.25</ymin>"
    person = "<name>person</name><pose>Frontal</pose><truncated>1</truncated><occluded>1</occluded>"
    person += "<difficult>0\n</difficult>"
    actions = "<actions><jumping>1</jumping></actions><point><x>3</x><y>4</y></point>"
    xml(tmp_path, "a", f"{about}{SIZE}<object>{person}<bndbox>{box}</bndbox>{actions}{head}{head}</object>")
    sample = open_source(source.name)[0]
    assert sample.boxes == ((1, 0.25, 33.5, 19),) and sample.box_crowds == (False,)
    assert [source.box_classes[label] for label in sample.box_labels] == ["person"]


def test_other_classes_are_those_that_the_files_name(tmp_path: Path) -> None:
    text = made(tmp_path)
    xml(tmp_path, "b", SIZE + DOG.format(PLACE).replace(">dog<", ">axolotl<"))
    source = open_source(text)
    assert source.box_classes == ("axolotl", "dog", "person") and source[1].box_labels == (0,)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("<object>", "b.xml: not valid XML"),
        ("<object><bndbox/></object>", r"<object> has no bndbox/xmin .there are: bndbox"),
        (f"<object><bndbox>{PLACE}</bndbox></object>", r"<object> has no name"),
        (DOG.format(PLACE.replace(">3<", ">x<")), "bndbox/ymin 'x', which is no number"),
        (DOG.format(PLACE.replace(">3<", ">nan<")), "bndbox/ymin 'nan', which is no number"),
        (SIZE.replace(">40<", ">41<") + DOG.format(PLACE), "it is 40 x 20, but was annotated as 41 x 20"),
        ("<a>" * 100 + "</a>" * 100, "more than 64 levels"),
    ],
)
def test_a_broken_file_makes_a_bad_sample(inside: str, said: str, tmp_path: Path) -> None:
    text = made(tmp_path)
    xml(tmp_path, "b", inside)
    source = open_source(text)
    with pytest.raises(BadSample, match=said):
        _ = source[1]
    assert len(source[0].boxes) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_entity_is_expanded_and_no_file_is_read(encoding: str, tmp_path: Path) -> None:
    text = made(tmp_path)
    (tmp_path / "secret").write_text("told")
    for entity in ('<!ENTITY x "lol">', f'<!ENTITY x SYSTEM "{tmp_path}/secret">'):
        doc = f'<?xml version="1.0"?><!DOCTYPE a [{entity}]><annotation><object><name>&x;</name></object></annotation>'
        (tmp_path / "Annotations" / "b.xml").write_bytes(doc.encode(encoding))
        with pytest.raises(BadSample, match="document type"):
            _ = open_source(text)[1]


def test_an_annotation_without_its_image_is_a_bad_sample(tmp_path: Path) -> None:
    text = made(tmp_path)
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(BadSample, match=r"b.xml has no image b\.\* in .*JPEGImages"):
        _ = open_source(text)[1]
    one = open_source(text).fingerprint()
    xml(tmp_path, "c", SIZE + DOG.format(PLACE))
    assert open_source(text).fingerprint() != one == one


def test_mistakes(tmp_path: Path) -> None:
    text = made(tmp_path)
    with pytest.raises(UserError, match="nowhere: there is no such folder; expected voc:FOLDER"):
        open_source(f"{text}/nowhere")
    (tmp_path / "JPEGImages").rename(tmp_path / "Images")
    with pytest.raises(UserError, match="JPEGImages: there is no such folder"):
        open_source(text)
