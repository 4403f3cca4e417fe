"""`yolo:FOLDER|data.yaml[,SPLIT]`: images with a text file each of what is in them, as YOLO's tools write it.

A line is a class number and `x y w h`, the middle and size of a box, or `x y x y x y ...`, the corners of an outline,
all as shares of the upright picture's sides; with `kpt_shape: [N, 2|3]` a box is followed by its points. The labels of
`.../images/a.jpg` are `.../labels/a.txt`; an image without that file has nothing in it. `data.yaml` has `names`, and
for each split a folder of images or a list of them (.txt), from the folder `path` on, or its own. Without it
`classes.txt` in FOLDER names the classes, and the images are those of FOLDER/images, or of FOLDER/images/SPLIT.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, final

import yaml

from onestage.data.annotated import Corners, content_of, fingerprint_of, keys_in, read_lines
from onestage.data.classes import MAX_BYTES, read_classes
from onestage.data.decode import EXTENSIONS, File
from onestage.data.entries import Strings
from onestage.data.listing import ending, names_in
from onestage.data.outlines import Outlines
from onestage.roles import Source
from onestage.sample import BadSample, Sample
from onestage.spec import UserError

PREFIX = "yolo:"
FORM = "yolo:FOLDER|data.yaml[,SPLIT]"
ABOUT = "YOLO's format: images/ and labels/ (boxes, outlines or points as shares of the sides), classes in data.yaml"
CLASSES = "classes.txt"
ROUNDING = 0.01
"""So far outside the picture a share may lie: annotation tools round."""
Points = tuple[tuple[float, float, int], ...]


class Layout(NamedTuple):
    """What data.yaml says, or the folder without it: where images lie, the names of classes, numbers of a point."""

    root: Path
    images: tuple[str, ...]
    names: tuple[str, ...]
    points: tuple[int, int]
    told: Path
    """The file that names the classes."""


class Thing(NamedTuple):
    """A line of a label file, in pixels. `outline` is empty for a box."""

    label: int
    box: Corners
    outline: tuple[float, ...]
    points: Points


@final
class Yolo(Source):
    """Images with boxes, outlines or points."""

    def __init__(self, name: str, layout: Layout, files: Strings, fingerprint: str) -> None:
        self.name, self.layout, self.files = name, layout, files
        self.box_classes = layout.names
        self.keypoints = tuple(map(str, range(layout.points[0])))
        self.keeps_captions = frozenset({"crop", "flip", "colour"})
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        file = self.files[index]
        picture, labels = File(self.layout.root / file), self.layout.root / labels_of(file)
        things: list[Thing] = []
        if labels.is_file():
            lines = content_of(labels).decode("utf-8", "replace").splitlines()
            where = [(f"{labels.name}, line {number}", line) for number, line in enumerate(lines, start=1)]
            things = [_thing(at, line, self.layout, picture.size) for at, line in where if line.strip()]
        outlines = [[list(thing.outline)] for thing in things if thing.outline]
        return Sample(
            key=file,
            picture=picture,
            boxes=tuple(thing.box for thing in things),
            box_labels=tuple(thing.label for thing in things),
            keypoints=tuple(thing.points for thing in things) if self.keypoints else (),
            instances=Outlines(outlines, picture.size) if things and len(outlines) == len(things) else None,
        )

    def fingerprint(self) -> str:
        """Hash of the images' names, the sizes of some, and of the file that names the classes."""
        return self._fingerprint


def open_yolo(text: str) -> Yolo:
    """A source by what a user types: yolo:FOLDER|data.yaml[,SPLIT].

    Raises:
        UserError: when a path is missing, nothing names the classes, or no image has labels.
    """
    path, split = Path(text.removeprefix(PREFIX)), ""
    if not path.exists():
        given, _, split = text.removeprefix(PREFIX).rpartition(",")
        path = Path(given) if given else path
    if not path.exists():
        raise UserError(f"{text}: {path}: there is no such folder or file; expected {FORM}")
    described = path / "data.yaml" if (path / "data.yaml").is_file() else path
    try:
        layout = _folder(text, path, split) if described.is_dir() else _described(described, split or "train")
        files = Strings(file for place in layout.images for file in _images(layout.root, place))
    except OSError as error:
        raise UserError(f"{text}: cannot be read ({error})") from None
    if not len(files):
        places = ", ".join(str(layout.root / place) for place in layout.images)
        raise UserError(f"{text}: no images in {places}; images end in {' '.join(sorted(EXTENSIONS))}")
    if not any((layout.root / labels_of(file)).is_file() for file in files):
        raise UserError(
            f"{text}: no image has labels; those of {files[0]} would be {layout.root / labels_of(files[0])}"
        )
    return Yolo(text, layout, files, fingerprint_of(text, layout.root, files, [layout.told]))


def labels_of(file: str) -> str:
    """The label file of an image: `labels` in place of the last folder called `images`, and .txt."""
    parts = list(PurePosixPath(file).parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def _folder(text: str, folder: Path, split: str) -> Layout:
    images = f"images/{split}" if split else "images"
    if not (folder / images).is_dir():
        raise UserError(f"{text}: {folder / images}: there is no such folder; expected {FORM}")
    if not (folder / CLASSES).is_file():
        raise UserError(f"{text}: nothing names the classes: no data.yaml and no {CLASSES} in {folder}")
    return Layout(folder, (images,), read_classes(folder / CLASSES), (0, 0), folder / CLASSES)


def _described(file: Path, split: str) -> Layout:
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file}: {file.stat().st_size} bytes is too large (at most {MAX_BYTES})")
    try:
        told = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())[:120]})") from None
    places = told.get(split) if isinstance(told, dict) else None
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, list) or not all(isinstance(place, str) and place for place in places):
        raise UserError(f"{file}: no folder of images under '{split}' ({keys_in(told)})")
    root = file.parent / str(told.get("path") or ".")
    if not root.is_dir() and any((file.parent / place).exists() for place in places):
        root = file.parent  # the path is often that from a folder of all data sets, in which this one is at home
    if not root.is_dir():
        raise UserError(f"{file}: path '{told['path']}': there is no folder {root}")
    # Some exporters write the places as seen from a folder beside the file.
    places = [place if (root / place).exists() else place.removeprefix("../") for place in places]
    shape = told.get("kpt_shape", [0, 0])
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] not in {0, 2, 3} or type(shape[0]) is not int:
        raise UserError(f"{file}: kpt_shape is {shape!r:.40}; expected [number of points, 2 or 3]")
    return Layout(root, tuple(places), _names(file, told.get("names")), (shape[0], shape[1]), file)


def _names(file: Path, told: Any) -> tuple[str, ...]:
    names = told
    if isinstance(told, dict) and sorted(told, key=str) == sorted(range(len(told)), key=str):
        names = [told[number] for number in range(len(told))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise UserError(f"{file}: names is {told!r:.60}; expected a list of class names, or one for each number from 0")
    return tuple(map(str, names))


def _images(root: Path, place: str) -> list[str]:
    """Images of a folder, or of a text file that lists them, by their paths from the root on."""
    path = root / place
    if path.is_dir():
        return sorted(f"{place}/{file}" for file in names_in(path) if ending(file) in EXTENSIONS)
    if path.suffix != ".txt" or not path.is_file():
        raise UserError(f"{path}: there is no such folder or list (.txt) of images")
    # As YOLO's tools read them: ./a.jpg lies beside the list, a.jpg under the root.
    beside = PurePosixPath(place).parent
    return [str(beside / line if line.startswith("./") else PurePosixPath(line)) for line in read_lines(path)]


def _thing(where: str, line: str, layout: Layout, size: tuple[int, int]) -> Thing:
    try:
        label, *shares = (float(word) for word in line.split())
    except ValueError:
        raise BadSample(f"{where}: '{line[:60]}' are not numbers") from None
    if not all(map(math.isfinite, shares)):
        raise BadSample(f"{where}: '{line[:60]}' are not numbers")
    if not 0 <= label < len(layout.names) or label != int(label):
        raise BadSample(f"{where}: class {label:g}, but only 0 to {len(layout.names) - 1} are named")
    count, each = layout.points
    boxed = len(shares) == 4 + count * each
    if not boxed and (len(shares) < 6 or len(shares) % 2 or count):
        raise BadSample(f"{where}: {len(shares)} numbers after the class; expected x y w h, or three corners and more")
    if count and boxed:
        points, shares = shares[4:], shares[:4]
    else:
        points = []
    if not all(-ROUNDING <= share <= 1 + ROUNDING for share in shares):
        raise BadSample(f"{where}: a number is no share of a side (0 to 1): '{line[:60]}'")
    width, height = size
    if not boxed:
        across, down = [x * width for x in shares[::2]], [y * height for y in shares[1::2]]
        outline = tuple(side for corner in zip(across, down, strict=True) for side in corner)
        return Thing(int(label), (min(across), min(down), max(across), max(down)), outline, ())
    x, y, w, h = shares
    box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    rows = [points[at : at + each] for at in range(0, len(points), each or 1)]
    return Thing(int(label), box, (), tuple(_point(row, width, height) for row in rows))


def _point(row: list[float], width: int, height: int) -> tuple[float, float, int]:
    """Without a third number, a point at (0, 0) is absent, and any other is seen."""
    seen = int(row[2]) if len(row) == 3 else 2 * any(row)
    return row[0] * width, row[1] * height, seen
