"""JPEGs decoded by libjpeg-turbo straight into arrays (`fast` extra: simplejpeg), as small as the planned views allow.

Pillow is the reference, and decodes everything else: other formats, CMYK, what EXIF turns, and what this decoder
refuses. At full size both give the same pixels. Halves, quarters and eighths come from the DCT coefficients alone, and
what lies below all views is not decoded.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from onestage.data.decode import Stored
from onestage.data.jpeg import is_cut_off, shortened
from onestage.roles import Picture
from onestage.spec import UserError

Decoder = Literal["fast", "pillow"]
FACTORS = (8, 4, 2)
"""How many times smaller the decoder can make a picture at no cost."""
BELOW = 2
"""Rows below those wanted that they depend on: colours are stored at half the size, and smoothed between two."""


class Decoded(NamedTuple):
    """Pixels, uint8 (height, width, 3), and their size as a share of the picture's."""

    pixels: np.ndarray
    scale: float


@cache
def is_installed() -> bool:
    """Whether the `fast` extra is there."""
    try:
        import simplejpeg  # noqa: F401 - to see whether it is there
    except ImportError:
        return False
    return True


def chosen(decoder: Decoder | None) -> Decoder:
    """The decoder that was asked for; the fast one, where it is installed, when none was.

    Raises:
        UserError: when the fast one is asked for and not installed.
    """
    if decoder == "fast" and not is_installed():
        raise UserError("decoder: fast needs simplejpeg: pip install 'onestage[fast]'; or use --decoder pillow")
    return decoder or ("fast" if is_installed() else "pillow")


def decode(picture: Picture, decoder: Decoder, shrink: float, rows: int) -> Decoded:
    """A picture's pixels, upright RGB, at its size or up to `shrink` times smaller.

    Args:
        rows: of how many rows, from the top, the pixels are wanted; what lies below may be missing.

    Raises:
        BadSample: when it does not decode.
    """
    made = _jpeg(picture, shrink, rows) if decoder == "fast" and isinstance(picture, Stored) else None
    return Decoded(picture.decode(), 1.0) if made is None else made


def _jpeg(picture: Stored, shrink: float, rows: int) -> Decoded | None:
    """None for what is left to Pillow."""
    import simplejpeg

    content = picture.encoded()
    if not content.startswith(b"\xff\xd8") or picture.turned:
        return None
    width, height = picture.size
    factor = next((factor for factor in FACTORS if factor <= shrink), 1)
    short = shortened(content, rows + BELOW * factor)
    content, height = (content, height) if short is None else short
    wanted = -(-height // factor), -(-width // factor)
    pixels = np.empty((*wanted, 3), np.uint8)
    try:
        *size, colours, _ = simplejpeg.decode_jpeg_header(content, *wanted, factor)
        if colours not in {"YCbCr", "RGB", "Gray"} or tuple(size) != wanted:
            return None
        simplejpeg.decode_jpeg(content, "RGB", False, False, *wanted, factor, pixels)
    except ValueError as error:
        if short is None or not is_cut_off(str(error)):  # damaged, or odd: Pillow says which
            return None
    picture.release()
    return Decoded(pixels, 1 / factor)
