"""What a data set is and yields: a source, its samples, and what they hold that is not decoded yet.

The first of the six nouns. Pictures, masks, instances and clips are read when they are asked to decode, and not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of its frames, upright, from the first of them."""

    @abstractmethod
    def span(self) -> tuple[float, float]:
        """Between which times frames can be shown, without decoding: `start`, and where the last frame ends."""

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


class Source(ABC):
    """Where samples come from: random access, and a fingerprint of what it holds."""

    name: str
    classes: tuple[str, ...] = ()
    """Names of the labels, in order; empty where there are none."""
    has_texts: bool = False
    has_labels: bool = False
    has_masks: bool = False
    mask_classes: tuple[str, ...] = ()
    """Names of the classes of masks, in order; empty where they have none."""
    box_classes: tuple[str, ...] = ()
    """Names of the classes of boxes, in order; empty where there are none."""
    keypoints: tuple[str, ...] = ()
    """Names of the points of a box; empty where it has none."""
    verdicts: tuple[str, ...] = ()
    """What may be said of a statement (`false`, `true`); empty where there are none."""
    has_questions: bool = False
    has_clips: bool = False
    keeps_captions: frozenset[str] = frozenset()
    """Augmentations that leave the captions true (`crop`, `flip`, `colour`)."""
    reads: Literal["random", "all"] = "random"
    """Of several captions any one afresh in each epoch, or each in its turn: all of them in as many epochs."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            BadSample: when it is damaged (its picture may also raise it on `size` and `decode`, its mask on `decode`).
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the samples change."""


def describe_as(source: Source, other: Source) -> None:
    """Let a source say of itself what another one does; its name stays its own."""
    for field in Source.__annotations__:
        if field != "name":
            setattr(source, field, getattr(other, field))
