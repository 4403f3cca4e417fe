"""`masks:IMAGES,MASKS`: a folder of images and a folder of PNG masks, paired by their paths without the ending.

A mask is a grey or palette picture of class numbers; 255, and every number given as `void=N`, counts for nothing.
`classes.txt` (one a line) or `class_names.json` (a list) in the folder of masks, or beside it, names the classes from 0
on; a class called void, ignore, unlabelled or unlabeled counts for nothing too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from onestage.data.classes import read_classes
from onestage.data.decode import EXTENSIONS, File, class_numbers
from onestage.data.listing import ending, files_in
from onestage.data.paths import paths_of
from onestage.roles import VOID, BadSample, Mask, Sample, Source
from onestage.spec import UserError

PREFIX = "masks:"
FORM = "masks:IMAGES,MASKS[,void=N]"
NAMES = ("classes.txt", "class_names.json")
NO_CLASS = frozenset({"void", "ignore", "unlabelled", "unlabeled"})
"""Names of what is no class."""
_SHOWN = 3


class Pair(NamedTuple):
    """An image and its mask by their paths inside their folders; one of them may be missing."""

    image: str | None
    mask: str | None


@final
class MaskFile(Mask):
    """A PNG of class numbers.

    Args:
        void: numbers that count for nothing.
        classes: how many have a name; None where none has.
    """

    def __init__(self, path: Path, void: frozenset[int], classes: int | None) -> None:
        self.path, self.void, self.classes = path, void, classes

    def decode(self) -> np.ndarray:
        """Class numbers, uint8 (height, width).

        Raises:
            BadSample: when it does not decode, or holds a number that has no name.
        """
        numbers = class_numbers(self.path)
        if self.void:
            numbers[np.isin(numbers, list(self.void))] = VOID
        if self.classes is not None:
            nameless = np.unique(numbers[(numbers >= self.classes) & (numbers != VOID)])
            if len(nameless):
                raise BadSample(
                    f"mask {self.path.name} has the class number {nameless[0]}, but only 0 to {self.classes - 1} are "
                    "named; name it too (void: it counts for nothing), or add ,void=N"
                )
        return numbers


@final
class MaskedFolder(Source):
    """Images with a class for every pixel. What lacks its image or its mask is a bad sample, and is counted as one."""

    def __init__(
        self,
        name: str,
        folders: tuple[Path, Path],
        pairs: dict[str, Pair],
        void: frozenset[int],
        classes: tuple[str, ...],
        fingerprint: str,
    ) -> None:
        self.name, self.folders, self.void = name, folders, void
        self.keys, self.pairs = list(pairs), list(pairs.values())
        self.mask_classes = classes
        self.has_masks = True
        self.keeps_captions = frozenset({"crop", "flip", "colour"})
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        (images, masks), (image, mask), key = self.folders, self.pairs[index], self.keys[index]
        if image is None:
            raise BadSample(f"mask {mask} has no image {key}.* in {images}")
        if mask is None:
            raise BadSample(f"image {image} has no mask {key}.png in {masks}")
        numbers = MaskFile(masks / mask, self.void, len(self.mask_classes) or None)
        return Sample(key=image, picture=File(images / image), mask=numbers)

    def fingerprint(self) -> str:
        """Hash of the files' names and sizes, of the class names and of what is void."""
        return self._fingerprint


def open_masks(text: str) -> MaskedFolder:
    """A source by what a user types: masks:IMAGES,MASKS[,void=N].

    Raises:
        UserError: when a folder is missing or holds no images or masks, when no image has a mask, or when two files
            have one name.
    """
    images, masks, void = _parsed(text)
    try:
        sizes, pairs = _paired(images, masks)
        classes = _names(masks)
    except OSError as error:
        raise UserError(f"{text}: cannot be read ({error})") from None
    void |= {number for number, name in enumerate(classes) if name.lower() in NO_CLASS}
    digest = hashlib.sha256(repr((sorted(void), classes)).encode())
    for key in pairs:
        digest.update(f"{key}\0{sizes[key]}\n".encode("utf-8", "surrogatepass"))
    return MaskedFolder(text, (images, masks), pairs, frozenset(void), classes, digest.hexdigest()[:32])


def _parsed(text: str) -> tuple[Path, Path, set[int]]:
    """The two folders, and the numbers that are void."""
    words = text.removeprefix(PREFIX).split(",")
    void: set[int] = set()
    while len(words) > 2 and words[-1].startswith("void="):
        number = words.pop().removeprefix("void=")
        if not (number.isascii() and number.isdigit() and int(number) <= VOID):
            raise UserError(f"{text}: void={number} is not a class number (0 to {VOID}); expected {FORM}")
        void.add(int(number))
    images, masks = paths_of(text, ",".join(words), FORM, ("folder", "folder"))
    return images, masks, void


def _paired(images: Path, masks: Path) -> tuple[dict[str, list[int]], dict[str, Pair]]:
    """Sizes in bytes and names of the files of every key: the path without its ending."""
    pictures = {found.file: found.size for found in files_in(images) if ending(found.file) in EXTENSIONS}
    if masks.samefile(images):
        pictures = {file: size for file, size in pictures.items() if ending(file) != ".png"}
    elif masks.resolve().is_relative_to(images.resolve()):  # they lie among the images, and are none themselves
        within = f"{masks.resolve().relative_to(images.resolve()).as_posix()}/"
        pictures = {file: size for file, size in pictures.items() if not file.startswith(within)}
    numbers = {found.file: found.size for found in files_in(masks) if ending(found.file) == ".png"}
    if not pictures:
        raise UserError(f"{images}: no images in it; images end in {' '.join(sorted(EXTENSIONS))}")
    if not numbers:
        raise UserError(f"{masks}: no masks in it; a mask is a PNG of class numbers, named as its image")
    left, right = _by_key(images, pictures), _by_key(masks, numbers)
    if not left.keys() & right.keys():
        raise UserError(
            f"{masks}: no mask is named as an image of {images} (masks: {_few(numbers)}; images: {_few(pictures)}); "
            "a pair has the same path inside both folders, but for the ending"
        )
    keys = sorted(left.keys() | right.keys())
    pairs = {key: Pair(left.get(key), right.get(key)) for key in keys}
    sizes = {key: [pictures.get(pair.image or "", -1), numbers.get(pair.mask or "", -1)] for key, pair in pairs.items()}
    return sizes, pairs


def _by_key(folder: Path, files: dict[str, int]) -> dict[str, str]:
    """Files by their paths without the ending."""
    found: dict[str, str] = {}
    for file in sorted(files):
        key = file[: -len(ending(file))]
        if key in found:
            raise UserError(f"{folder}: {found[key]} and {file} differ by their endings alone; keep one of them")
        found[key] = file
    return found


def _names(masks: Path) -> tuple[str, ...]:
    """The names of the classes, from the folder of masks or the one it lies in; empty where there are none."""
    for file in (folder / name for folder in (masks, masks.resolve().parent) for name in NAMES):
        if file.is_file():
            names = read_classes(file)
            real = [name for name in names if name.lower() not in NO_CLASS]
            twice = next((name for name in real if real.count(name) > 1), None)
            if twice is not None or len(names) > VOID:
                fault = f"names '{twice}' twice" if twice is not None else f"names more than {VOID} classes"
                raise UserError(f"{file}: {fault}; it names each class of the masks in {masks} once, class 0 first")
            return names
    return ()


def _few(files: dict[str, int]) -> str:
    names = sorted(files)
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
