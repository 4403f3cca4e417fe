"""`voc:FOLDER[,SPLIT]`: PASCAL VOC's layout: Annotations/*.xml, JPEGImages, ImageSets, and masks.

SegmentationClass has the class of every pixel, SegmentationObject the number of its object, from 1 on, in the order of
the annotation; on the rims between objects both are void.

SPLIT is a list of ImageSets/Main such as `trainval`, or one of another folder of it, such as `Segmentation/val`;
without it every annotation is a sample. Boxes are numbered from 1 on in the files, their last pixel included. What is
difficult need not be found. (Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010, and its
development kit.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

import numpy as np

from onestage.data.annotated import content_of, fingerprint_of, inside, read_lines
from onestage.data.decode import EXTENSIONS, File, class_numbers
from onestage.data.entries import Strings
from onestage.data.listing import ending, names_in
from onestage.data.masks import MaskFile
from onestage.data.outlines import MAX_MASKS
from onestage.data.xml import Element, parse
from onestage.roles import Source
from onestage.sample import VOID, BadSample, Instances, Sample
from onestage.spec import UserError

PREFIX = "voc:"
FORM = "voc:FOLDER[,SPLIT]"
ABOUT = "PASCAL VOC's layout: Annotations/*.xml, JPEGImages, ImageSets/Main/SPLIT.txt, SegmentationClass"
ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", "ImageSets"
MASKS, OBJECTS = "SegmentationClass", "SegmentationObject"
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of VOC, whose numbers in masks are these from 1 on."""


@final
class ObjectMasks(Instances):
    """Where each object is, by a PNG of their numbers.

    Args:
        count: how many objects the annotation has.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def decode(self) -> np.ndarray:
        """bool (objects, height, width).

        Raises:
            BadSample: when it does not decode, or has an object that the annotation lacks.
        """
        numbers = class_numbers(self.path)
        highest = int(numbers.max(initial=0, where=numbers != VOID))
        if highest > self.count:
            raise BadSample(f"{OBJECTS}/{self.path.name} has object {highest}, but {self.count} are annotated")
        if numbers.size * self.count > MAX_MASKS:
            raise BadSample(f"{self.count} masks of {numbers.shape[1]} x {numbers.shape[0]} pixels are too many")
        return np.arange(1, self.count + 1)[:, None, None] == numbers


@final
class Voc(Source):
    """Images with boxes and, where every one has them, masks.

    Args:
        rows: for each sample a JSON object of its `key`, its `objects`, or the `fault` that it has.
        images: files by their names without the ending.
        masks, outlined: what has a mask of classes, and one of objects.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        rows: Strings,
        images: dict[str, str],
        classes: tuple[str, ...],
        masks: frozenset[str],
        outlined: frozenset[str],
        fingerprint: str,
    ) -> None:
        self.name, self.folder, self.rows, self.images = name, folder, rows, images
        self.masks, self.outlined = masks, outlined
        self.box_classes = classes
        self.has_masks = bool(masks)
        self.mask_classes = ("background", *VOC) if self.has_masks and classes == VOC else ()
        self.keeps_captions = frozenset({"crop", "flip", "colour"})
        self._number = {label: number for number, label in enumerate(classes)}
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = json.loads(self.rows[index])
        key = row["key"]
        if "fault" in row:
            raise BadSample(row["fault"])
        if key not in self.images:
            raise BadSample(f"{key}.xml has no image {key}.* in {self.folder / IMAGES}")
        objects, picture = row["objects"], File(self.folder / IMAGES / self.images[key])
        if objects and row["size"] and picture.size != tuple(row["size"]):
            width, height = picture.size
            raise BadSample(f"it is {width} x {height}, but was annotated as {row['size'][0]} x {row['size'][1]}")
        mask = MaskFile(self.folder / MASKS / f"{key}.png", frozenset(), len(self.mask_classes) or None)
        outlines = ObjectMasks(self.folder / OBJECTS / f"{key}.png", len(objects))
        return Sample(
            key=self.images[key],
            picture=picture,
            boxes=tuple((one["box"][0], one["box"][1], one["box"][2], one["box"][3]) for one in objects),
            box_labels=tuple(self._number[one["name"]] for one in objects),
            box_crowds=tuple(one["difficult"] for one in objects),
            mask=mask if key in self.masks else None,
            instances=outlines if objects and key in self.outlined else None,
        )

    def fingerprint(self) -> str:
        """Hash of the annotations, the images' names, and the sizes of a few thousand."""
        return self._fingerprint


def open_voc(text: str) -> Voc:
    """A source by what a user types: voc:FOLDER[,SPLIT]. Every annotation is read.

    Raises:
        UserError: when a folder or the split is missing, or none of the images is there.
    """
    folder, split = Path(text.removeprefix(PREFIX)), ""
    if not folder.is_dir():
        given, _, split = text.removeprefix(PREFIX).rpartition(",")
        folder = Path(given) if given else folder
    for needed in (folder, folder / ANNOTATIONS, folder / IMAGES):
        if not needed.is_dir():
            raise UserError(f"{text}: {needed}: there is no such folder; expected {FORM}")
    try:
        keys = _keys(text, folder, split)
        images = {file[: -len(ending(file))]: file for file in names_in(folder / IMAGES) if ending(file) in EXTENSIONS}
        masks, outlined = (
            frozenset(_stems(folder / place, ".png") if (folder / place).is_dir() else ()) for place in (MASKS, OBJECTS)
        )
    except OSError as error:
        raise UserError(f"{text}: cannot be read ({error})") from None
    rows = [_row(folder, key, key in masks) for key in keys]
    names = {one["name"] for row in rows for one in row.get("objects", ())}
    classes = VOC if names <= set(VOC) else tuple(sorted(names))
    packed = Strings(json.dumps(row) for row in rows)
    files = [images.get(key, f"{key}.jpg") for key in keys]
    told = repr(list(packed)), repr(sorted(masks)), repr(sorted(outlined)) if outlined else ""
    fingerprint = fingerprint_of(text, folder / IMAGES, files, [], *told)
    every = masks if masks.issuperset(keys) else frozenset[str]()
    return Voc(text, folder, packed, images, classes, every, outlined, fingerprint)


def _keys(text: str, folder: Path, split: str) -> list[str]:
    """The names of the samples, in the order of the split."""
    if not split:
        return sorted(_stems(folder / ANNOTATIONS, ".xml"))
    file = folder / SETS / f"{split}.txt" if "/" in split else folder / SETS / "Main" / f"{split}.txt"
    if ".." in Path(split).parts or not file.is_file():
        there = sorted(path.stem for path in file.parent.glob("*.txt"))[:20]
        raise UserError(f"{text}: there is no split {file} (there are: {', '.join(there) or 'none'})")
    lines = [line.split() for line in read_lines(file)]
    # A list of one class says of each image whether it shows it: -1 no, 0 difficult, 1 yes.
    keys = [inside(str(file), words[0]) for words in lines if words[1:] != ["-1"]]
    if not keys:
        raise UserError(f"{file}: lists no image")
    return keys


def _stems(folder: Path, end: str) -> list[str]:
    return [file[: -len(end)] for file in names_in(folder) if ending(file) == end]


def _row(folder: Path, key: str, masked: bool) -> dict[str, Any]:
    path = folder / ANNOTATIONS / f"{key}.xml"
    if masked and not path.exists():
        return {"key": key, "objects": [], "size": []}
    try:
        root = parse(content_of(path))
        size = [int(root.number(f"size/{side}")) for side in ("width", "height")] if root.first("size") else []
        return {"key": key, "objects": [_object(one) for one in root.all("object")], "size": size if all(size) else []}
    except BadSample as error:
        return {"key": key, "fault": f"{path.name}: {error}"}


def _object(one: Element) -> dict[str, Any]:
    left, top, right, bottom = (one.number(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    difficult = one.first("difficult")
    return {
        "name": one.text("name"),
        "box": [left - 1, top - 1, right, bottom],
        "difficult": difficult is not None and difficult.content == "1",
    }
