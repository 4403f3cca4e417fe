"""COCO's panoptic masks: a PNG whose colour is the number of a segment, R + 256 G + 65536 B; 0 is no segment.

Kirillov et al., "Panoptic Segmentation", arXiv:1801.00868; the format is that of its COCO challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from onestage.data.decode import File, opened
from onestage.data.outlines import MAX_MASKS
from onestage.sample import VOID, BadSample, Instances, Mask


@final
class Segments:
    """The PNG of one picture, and the numbers of its segments in their order."""

    def __init__(self, path: Path, ids: Sequence[int]) -> None:
        self.path, self.ids = path, tuple(ids)

    def places(self) -> np.ndarray:
        """The place of every pixel's segment in the list, -1 where there is none: int64 (height, width).

        Raises:
            BadSample: when it does not decode, or has a segment that is not listed.
        """
        with opened(File(self.path).read()) as image:
            if image.mode != "RGB":
                raise BadSample(f"{self.path.name} is {image.mode}, but segments are numbered by RGB colours")
            red, green, blue = np.asarray(image).astype(np.int64).transpose(2, 0, 1)
        numbers = red + 256 * green + 65536 * blue
        found, place = np.unique(numbers, return_inverse=True)
        listed = {number: place for place, number in enumerate(self.ids)}
        strange = next((number for number in found.tolist() if number and number not in listed), None)
        if strange is not None:
            raise BadSample(f"{self.path.name} has the segment {strange}, which is not listed")
        known = np.array([listed.get(number, -1) for number in found.tolist()])
        return known[place.reshape(numbers.shape)]


@final
class SegmentInstances(Instances):
    """Where each segment is."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def decode(self) -> np.ndarray:
        """bool (segments, height, width).

        Raises:
            BadSample: as `Segments.places`.
        """
        places, count = self.segments.places(), len(self.segments.ids)
        if places.size * count > MAX_MASKS:
            raise BadSample(f"{count} masks of {places.shape[1]} x {places.shape[0]} pixels are too many")
        return np.arange(count)[:, None, None] == places


@final
class SegmentMask(Mask):
    """The class of every pixel.

    Args:
        labels: number of the class of each segment.
    """

    def __init__(self, segments: Segments, labels: Sequence[int]) -> None:
        self.segments, self.labels = segments, labels

    def decode(self) -> np.ndarray:
        """Class numbers, uint8 (height, width).

        Raises:
            BadSample: as `Segments.places`.
        """
        return np.array([*self.labels, VOID], dtype=np.uint8)[self.segments.places()]
