"""Files to upright RGB pixels, with bounds on what is read.

Grey, palette, CMYK, 16-bit grey and transparent pictures (over white) become 8-bit RGB, turned as EXIF says. The
header is read first, so that a picture larger than the bound is refused before it takes memory. Only the formats
named here are tried, whatever a file is called: some of Pillow's others start programs of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from onestage.roles import VOID, BadSample, Picture

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
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


@final
class File(Picture):
    """An image file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), upright; the header is read once.

        Raises:
            BadSample: when it is no image, or larger than the bound.
        """
        if self._size is None:
            with _opened(self.path) as image:
                width, height = image.size
                self._size = (height, width) if _orientation(image) in _LYING else (width, height)
        return self._size

    def decode(self) -> np.ndarray:
        """Upright RGB, read-only.

        Raises:
            BadSample: when it does not decode to the end.
        """
        with _opened(self.path) as image:
            return np.asarray(upright(image))


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
    """A grey or palette picture as the numbers that are written in it, not as the colours they are shown in.

    Returns:
        uint8 (height, width).

    Raises:
        BadSample: when it does not decode, has colours, or numbers above 255.
    """
    with _opened(path) as image:
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
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read and checked. What goes wrong with it inside the block is a bad sample too."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadSample(f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadSample(f"no name of a file ({error})") from None
    if size == 0:
        raise BadSample("the file is empty")
    if size > MAX_BYTES:
        raise BadSample(f"{size} bytes, more than {MAX_BYTES}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads all the same
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadSample(f"{width} x {height} pixels, more than {MAX_PIXELS}")
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
