"""Clips that are pictures: folders of frames, and what all clips share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onestage.data.decode import EXTENSIONS, File
from onestage.data.listing import ending
from onestage.sample import BadSample, Clip, Picture

MAX_FRAMES = 4096
"""Of one decoding."""
MAX_BYTES = 2 << 30
"""Of the pixels of one decoding."""
CLOSE = 1e-4
"""Seconds by which a time may miss a frame's own by rounding."""
GONE = 1.0
"""Seconds for which a last frame is taken to stand; two of its kind, where frames are rarer."""


@final
class FrameFolder(Clip):
    """A folder of images that are the frames of a clip, in the order of their numbers.

    Args:
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.start, self.stop = 0.0, math.inf

    @property
    def size(self) -> tuple[int, int]:
        """From the header of the first frame.

        Raises:
            BadSample: when it is no image.
        """
        return File(self.path / self._files()[0]).size

    def span(self) -> tuple[float, float]:
        """From 0 to the end of the last frame."""
        return 0.0, len(self._files()) / self.rate

    def middle(self) -> float:
        """The time of the middle frame."""
        return len(self._files()) // 2 / self.rate

    def times(self) -> tuple[float, ...]:
        return tuple(number / self.rate for number in range(len(self._files())))

    def decode(self, times: Sequence[float], short: int | None = None) -> UInt8[np.ndarray, "frames height width 3"]:
        """The frames that are shown at the given times.

        Raises:
            BadSample: when one does not decode, or has another size than the others.
        """
        checked_times(times)
        files = self._files()
        if times[-1] * self.rate > len(files) + GONE * self.rate:
            raise BadSample(f"ends at {len(files) / self.rate:g} s, before {times[-1]:g} s")
        numbers = [min(int(time * self.rate + CLOSE), len(files) - 1) for time in times]
        return stacked([File(self.path / files[number]) for number in numbers], short)

    def _files(self) -> list[str]:
        try:
            found = [path.name for path in self.path.iterdir()]
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror})") from None
        names = [name for name in found if ending(name) in EXTENSIONS and not name.startswith(".")]
        if not names:
            raise BadSample("no frames in it")
        # frame10 comes after frame9
        return sorted(
            names, key=lambda name: [(int(part), "") if part.isdecimal() else (0, part) for part in _SPLIT(name)]
        )


_SPLIT = re.compile(r"(\d+)", re.ASCII).split


def stacked(pictures: Sequence[Picture], short: int | None) -> UInt8[np.ndarray, "frames height width 3"]:
    """Pictures as the frames of a clip.

    Raises:
        BadSample: when one does not decode, or has another size than the others.
    """
    found: list[np.ndarray] = []
    for one in pictures:
        picture = Image.fromarray(one.decode())
        found.append(np.asarray(picture.resize(fitted(picture.width, picture.height, short), Image.Resampling.BOX)))
        if found[0].nbytes * len(pictures) > MAX_BYTES or found[0].shape != found[-1].shape:
            raise BadSample(f"{len(pictures)} frames of {found[-1].shape} pixels are too many, or of several sizes")
    return np.stack(found)


def checked_times(times: Sequence[float]) -> None:
    """Refuse times that no clip can be decoded at: a mistake of ours, so a `ValueError`."""
    if not 0 < len(times) <= MAX_FRAMES or list(times) != sorted(times) or not all(map(math.isfinite, times)):
        raise ValueError(f"{len(times)} times; expected 1 to {MAX_FRAMES}, in order")


def fitted(width: int, height: int, short: int | None) -> tuple[int, int]:
    """(width, height), brought down."""
    scale = 1.0 if short is None else min(short / min(width, height), 1.0)
    return max(round(width * scale), 1), max(round(height * scale), 1)
