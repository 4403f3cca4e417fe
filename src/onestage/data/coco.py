"""`coco:IMAGES,ANNOTATIONS.json`: COCO's own files of captions, instances, keypoints and panoptic segments.

What a file holds is seen from its annotations. The PNGs of panoptic segments lie in a folder beside the file that is
named as it is, without `.json`, or that is given third. Formats: Lin et al., arXiv:1405.0312; Kirillov et al.,
arXiv:1801.00868.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from onestage.data.annotated import MAX_CLASSES, Corners, fingerprint_of, inside, listed, needed, numbers, read_json
from onestage.data.decode import File
from onestage.data.entries import Strings
from onestage.data.outlines import Outlines
from onestage.data.panoptic import SegmentInstances, SegmentMask, Segments
from onestage.data.paths import paths_of
from onestage.roles import Source
from onestage.sample import VOID, BadSample, Sample
from onestage.spec import UserError

PREFIX = "coco:"
FORM = "coco:IMAGES,ANNOTATIONS.json[,PANOPTIC]"
ABOUT = "COCO's format: captions, instances (boxes and masks), keypoints, or panoptic segments (PNGs in a folder)"
_LAYOUT = 'COCO\'s format, {"images": [...], "annotations": [...], "categories": [...]}'


class Categories(NamedTuple):
    """Numbers of the classes by their ids, their names, and the names of the points of a box."""

    number: Mapping[int, int]
    names: tuple[str, ...]
    keypoints: tuple[str, ...]


class Box(NamedTuple):
    """An annotated thing."""

    corners: Corners
    label: int
    crowd: bool
    area: float
    keypoints: tuple[tuple[float, float, int], ...]


@final
class Coco(Source):
    """Images with what COCO's annotations say of them: a sample for each image that the file lists.

    Args:
        rows: for each image a JSON object of its `image`, and of its `texts`, `objects` and `segments`, as annotated.
        panoptic: the folder of PNGs.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        rows: Strings,
        categories: Categories,
        captioned: bool,
        panoptic: Path | None,
        fingerprint: str,
    ) -> None:
        self.name, self.folder, self.rows, self.panoptic = name, folder, rows, panoptic
        self.categories = categories
        self.box_classes, self.keypoints = categories.names, categories.keypoints
        self.mask_classes = () if panoptic is None else categories.names
        self.has_masks = panoptic is not None
        self.has_texts = captioned
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = json.loads(self.rows[index])
        image, objects, segments = row["image"], row.get("objects", []), row.get("segments")
        found = objects if segments is None else _segments(segments)
        boxes = [_box(one, self.categories) for one in found]
        picture = File(self.folder / image["file_name"])
        size = (image.get("width"), image.get("height"))
        if boxes and size != (None, None) and picture.size != size:
            width, height = picture.size
            raise BadSample(f"it is {width} x {height}, but was annotated as {size[0]} x {size[1]}")
        outlines = [one.get("segmentation") for one in objects]
        instances = Outlines(outlines, picture.size) if objects and all(outlines) else None
        mask = None
        if segments is not None and self.panoptic is not None:
            png = Segments(self.panoptic / segments["file_name"], [one["id"] for one in found])
            instances, mask = SegmentInstances(png), SegmentMask(png, [box.label for box in boxes])
        return Sample(
            key=image["file_name"],
            picture=picture,
            texts=tuple(text for text in (text.strip() for text in row.get("texts", ())) if text),
            boxes=tuple(box.corners for box in boxes),
            box_labels=tuple(box.label for box in boxes),
            box_crowds=tuple(box.crowd for box in boxes),
            box_areas=tuple(box.area for box in boxes),
            keypoints=tuple(box.keypoints for box in boxes) if self.keypoints else (),
            instances=instances,
            mask=mask,
        )

    def fingerprint(self) -> str:
        """Hash of the annotations, the images' names, and the sizes of a few thousand."""
        return self._fingerprint


def open_coco(text: str) -> Coco:
    """A source by what a user types: coco:IMAGES,ANNOTATIONS.json[,PANOPTIC].

    Raises:
        UserError: when a path is missing, the file is not in COCO's format, or none of its images is there.
    """
    paths = paths_of(text, text.removeprefix(PREFIX), FORM, ("folder", "file"), ("folder", "file", "folder"))
    folder, file = paths[:2]
    told = read_json(file)
    images, annotations = listed(file, told, "images", _LAYOUT), told.get("annotations") or []
    if annotations:  # a test set has none
        listed(file, told, "annotations", _LAYOUT)
    categories = _categories(file, told)
    rows = _by_image(file, images)
    kinds = {_add(file, rows, annotation) for annotation in annotations}
    panoptic = None
    if "segments" in kinds:
        panoptic = _panoptic(file, paths[2:], categories)
    files = [row["image"]["file_name"] for row in rows.values()]
    fingerprint = fingerprint_of(str(file), folder, files, [file])
    packed = Strings(json.dumps(row, separators=(",", ":")) for row in rows.values())
    captioned = any("texts" in row for row in rows.values())
    return Coco(text, folder, packed, categories, captioned, panoptic, fingerprint)


def _by_image(file: Path, images: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """For each image, by its id, what will be known of it."""
    rows: dict[int, dict[str, Any]] = {}
    for number, image in enumerate(images):
        where = f"{file}, image {number}"
        name, known = inside(where, needed(where, image, "file_name", str)), needed(where, image, "id", (int, str))
        if known in rows:
            raise UserError(f"{where}: its id {known} is another image's")
        size = {side: image[side] for side in ("width", "height") if isinstance(image.get(side), int)}
        rows[known] = {"image": {"file_name": name, **(size if len(size) == 2 else {})}}
    return rows


def _add(file: Path, rows: dict[int, dict[str, Any]], annotation: dict[str, Any]) -> str:
    """Put an annotation beside its image, if that is listed, and say what kind it is of."""
    where = f"{file}, annotation {annotation.get('id', '')}"
    row = rows.get(needed(where, annotation, "image_id", (int, str)), {})
    if isinstance(annotation.get("segments_info"), list):
        name = inside(where, needed(where, annotation, "file_name", str))
        row["segments"] = {"file_name": name, "segments_info": annotation["segments_info"]}
        return "segments"
    if isinstance(annotation.get("caption"), str):
        row.setdefault("texts", []).append(annotation["caption"])
        return "texts"
    needed(f"{where}: no caption, bbox or segments_info", annotation, "bbox", list)
    row.setdefault("objects", []).append(annotation)
    return "objects"


def _categories(file: Path, told: dict[str, Any]) -> Categories:
    """In the order of their ids."""
    given = listed(file, told, "categories", _LAYOUT) if told.get("categories") else []
    if len(given) > MAX_CLASSES:
        raise UserError(f"{file}: {len(given)} categories, more than {MAX_CLASSES}")
    where = f"{file}, a category"
    ordered = sorted(given, key=lambda one: needed(where, one, "id", int))
    points = next((one["keypoints"] for one in ordered if isinstance(one.get("keypoints"), list)), [])
    return Categories(
        {one["id"]: number for number, one in enumerate(ordered)},
        tuple(needed(where, one, "name", str) for one in ordered),
        tuple(map(str, points)),
    )


def _panoptic(file: Path, given: Sequence[Path], categories: Categories) -> Path:
    folder = given[0] if given else file.with_suffix("")
    if not folder.is_dir():
        raise UserError(f"{file}: its segments are PNGs, and {folder} is no folder; name theirs: {FORM}")
    if len(categories.names) > VOID:
        raise UserError(f"{file}: {len(categories.names)} categories, but masks hold at most {VOID}")
    return folder


def _segments(told: dict[str, Any]) -> list[dict[str, Any]]:
    found = told["segments_info"]
    if not all(isinstance(one, dict) and type(one.get("id")) is int for one in found):
        raise BadSample("segments_info has what is no segment with an id")
    return found


def _box(one: dict[str, Any], categories: Categories) -> Box:
    where = f"annotation {one.get('id', '')}"
    left, top, width, height = numbers(f"{where}, bbox", one.get("bbox"), 4)
    category = one.get("category_id")
    label = categories.number.get(category) if isinstance(category, int) else None
    if label is None:
        raise BadSample(f"{where}: category_id {category!r:.40} is none of the categories")
    (area,) = numbers(f"{where}, area", [one.get("area", width * height)], 1)
    corners = (left, top, left + width, top + height)
    return Box(corners, label, bool(one.get("iscrowd", 0)), area, _points(where, one.get("keypoints", [])))


def _points(where: str, given: Any) -> tuple[tuple[float, float, int], ...]:
    count = len(given) if isinstance(given, list) else -1
    flat = numbers(f"{where}, keypoints", given, count - count % 3)
    return tuple((flat[at], flat[at + 1], int(flat[at + 2])) for at in range(0, len(flat), 3))
