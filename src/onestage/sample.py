"""What a data set yields: a sample, and what it holds that is not decoded yet.

The first of the six nouns. Pictures, masks, instances and clips are read when they are asked to decode, and not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

VOID = 255
"""In a mask: a pixel that belongs to no class and counts for nothing."""


class BadSample(Exception):
    """A sample that cannot be used. The message says why, and goes into the quarantine."""


class Picture(ABC):
    """An image that is not decoded yet."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright, read from the header alone."""

    @abstractmethod
    def decode(self) -> np.ndarray:
        """Upright RGB pixels, uint8, shape (height, width, 3)."""


class Mask(ABC):
    """The class of every pixel of a picture, not decoded yet."""

    @abstractmethod
    def decode(self) -> np.ndarray:
        """Class numbers, `VOID` where none is meant: uint8, shape (height, width), upright as the picture."""


class Instances(ABC):
    """The outlines of a picture's boxes, not decoded yet."""

    @abstractmethod
    def decode(self) -> Bool[np.ndarray, "boxes height width"]:
        """True where a box's own thing is, in the order of `Sample.boxes`, upright as the picture."""


class Clip(ABC):
    """A span of a video, not decoded yet. A clip is frames with times."""

    start: float
    stop: float
    """Seconds from the start of the video; a frame belongs to a clip where start <= time < stop."""

    @abstractmethod
    def middle(self) -> float:
        """A time half way, without decoding."""

    @abstractmethod
    def times(self) -> tuple[float, ...]:
        """Of all its frames, in seconds from the start of the video, in order."""

    @abstractmethod
    def decode(self, times: Sequence[float], short: int | None = None) -> UInt8[np.ndarray, "frames height width 3"]:
        """The frames that are shown at the given times, upright RGB.

        Args:
            times: seconds from the start of the video, in order.
            short: brings frames whose shorter side is longer down to it.
        """


class Question(NamedTuple):
    """A question about a picture, and what people answered, each answer as often as it was given."""

    text: str
    answers: tuple[str, ...] = ()
    key: str = ""
    """Its name in the data set, where it has one: answers are handed in under it."""


class Statement(NamedTuple):
    """A sentence about a picture, or about two, and what is right to say of it: a number of `Source.verdicts`."""

    text: str
    verdict: int | None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a source yields. Whatever a source does not know is absent (empty or None)."""

    key: str
    """Names the sample inside its source: a relative path, or a number."""
    picture: Picture
    texts: tuple[str, ...] = ()
    label: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """(left, top, right, bottom) in pixels."""
    box_labels: tuple[int, ...] = ()
    """Numbers of `Source.box_classes`; where there are any, one a box, as are the next three."""
    box_crowds: tuple[bool, ...] = ()
    """Whether a box is round many things, or one that need not be found: it counts neither way."""
    box_areas: tuple[float, ...] = ()
    """Pixels of each thing, as annotated."""
    keypoints: tuple[tuple[tuple[float, float, int], ...], ...] = ()
    """For each box its points (x, y, 0 absent | 1 hidden | 2 seen) in the order of `Source.keypoints`, or none."""
    instances: Instances | None = None
    mask: Mask | None = None
    questions: tuple[Question, ...] = ()
    statement: Statement | None = None
    second: Picture | None = None
    """The other picture, where the statement is about two."""
    clip: Clip | None = None
    """The clip that `picture` is a frame of."""
