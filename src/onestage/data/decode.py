"""Files to upright RGB pixels, with bounds on what is read.

Grey, palette, CMYK, 16-bit grey and transparent pictures (over white) become 8-bit RGB, turned as EXIF says. The
header is read first, so that a picture larger than the bound is refused before it takes memory. Only the formats
named here are tried, whatever a file is called: some of Pillow's others start programs of their own.
"""

from __future__ import annotations

import io
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from onestage.data.jpeg import plain_size
from onestage.roles import VOID, BadSample, Picture

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
LEAST_SIDE = 2
"""Pixels: web pages are full of pictures of one pixel, which show nothing."""
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_NUMBERED = frozenset({"1", "L", "P"})
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation (EXIF 2.3, section 4.6.4)."""
_LYING = frozenset({5, 6, 7, 8})


@final
class Pixels(Picture):
    """Pixels in memory, uint8 (height, width, 3)."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def decode(self) -> np.ndarray:
        return self.pixels


class Stored(Picture, ABC):
    """An encoded picture, wherever its bytes lie. They are read once, by what is asked first, and held to the end of
    decoding."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._held: bytes | None = None
        self._orientation = 1

    @abstractmethod
    def read(self) -> bytes:
        """The bytes, from where they lie.

        Raises:
            BadSample: when they cannot be had, or are more than `MAX_BYTES`.
        """

    def encoded(self) -> bytes:
        """The bytes, read once.

        Raises:
            BadSample: when they cannot be had, or there are none.
        """
        if self._held is None:
            self._held = self.read()
            if not self._held:
                raise BadSample("the file is empty")
        return self._held

    def release(self) -> None:
        """Let go of the bytes."""
        self._held = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), upright; the header is read once.

        Raises:
            BadSample: when it is no image, or larger than the bound.
        """
        if self._size is None:
            self._size = plain_size(self.encoded(), MAX_PIXELS)
        if self._size is None:
            with opened(self.encoded()) as image:
                width, height = image.size
                self._orientation = _orientation(image)
                self._size = (height, width) if self._orientation in _LYING else (width, height)
        return self._size

    @property
    def turned(self) -> bool:
        """Whether the stored pixels are not upright."""
        _ = self.size  # reads the header
        return self._orientation != 1

    def decode(self) -> np.ndarray:
        """Upright RGB, read-only.

        Raises:
            BadSample: when it does not decode to the end.
        """
        with opened(self.encoded()) as image:
            pixels = np.asarray(upright(image))
        self.release()
        return pixels


@final
class File(Stored):
    """An image file."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = path

    def read(self) -> bytes:
        """The file's content.

        Raises:
            BadSample: when it cannot be read, or is too large.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                if size <= MAX_BYTES:
                    return os.read(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise BadSample(f"no name of a file ({error})") from None
        raise BadSample(f"{size} bytes, more than {MAX_BYTES}")


@final
class InMemory(Stored):
    """An encoded picture whose bytes are there."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            BadSample: when they are too many.
        """
        if len(self.content) > MAX_BYTES:
            raise BadSample(f"{len(self.content)} bytes, more than {MAX_BYTES}")
        return self.content


@final
class Unusable(Picture):
    """A picture that is not there, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @property
    def size(self) -> tuple[int, int]:
        raise BadSample(self.reason)

    def decode(self) -> np.ndarray:
        """Raises `BadSample` with the reason."""
        raise BadSample(self.reason)


def upright(image: Image.Image) -> Image.Image:
    """A picture as it is meant to be seen, in 8-bit RGB.

    Raises:
        BadSample: when its pixels are floating-point numbers, of which nobody knows which one is white.
    """
    turn = _TURNS.get(_orientation(image))  # before the pixels: a later EXIF block cannot contradict `size`
    if image.mode == "F":
        raise BadSample("floating-point pixels")
    image.load()
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):  # 16 bits, also where Pillow widens them to 32
        grey = np.clip(np.asarray(image).astype(np.float32) / 257, 0, 255)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def class_numbers(path: Path) -> np.ndarray:
    """As `numbers_in`, of a file."""
    return numbers_in(File(path).read())


def numbers_in(content: bytes) -> np.ndarray:
    """A grey or palette picture as the numbers that are written in it, not as the colours they are shown in.

    Returns:
        uint8 (height, width).

    Raises:
        BadSample: when it does not decode, has colours, or numbers above 255.
    """
    with opened(content) as image:
        if image.mode not in _NUMBERED and not image.mode.startswith("I"):
            raise BadSample(
                f"its pixels are colours ({image.mode}), not class numbers: a mask is grey or has a palette"
            )
        numbers = np.asarray(image)
    highest = int(numbers.max())
    if highest > VOID:
        raise BadSample(f"has the class number {highest}; numbers go up to {VOID - 1}, and {VOID} is void")
    return numbers.astype(np.uint8)


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """A picture with its header read and checked. What goes wrong with it inside the block is a bad sample too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads all the same
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadSample(f"{width} x {height} pixels, more than {MAX_PIXELS}")
                if min(width, height) < LEAST_SIDE:
                    raise BadSample(f"{width} x {height} pixels: a spacer or a rule, not a picture")
                yield image
        except BadSample:
            raise
        except Exception as error:  # Pillow's decoders raise whatever their formats think of
            raise BadSample(_reason(error)) from None


def _orientation(image: Image.Image) -> int:
    """1 to 8, from the header alone; 1 for TIFF, which Pillow turns by itself, in size and pixels."""
    if image.format == "TIFF":
        return 1
    try:
        # The base class's: PNG's own decodes all pixels to look for EXIF behind them.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make a broken picture
        return 1


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    return " ".join(str(error).split())[:200] or type(error).__name__
