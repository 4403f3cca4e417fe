"""Members of a sample in a shard that are read when they are decoded: its mask, outlines, second picture and clip.

`seg.png` is a mask of class numbers, as in WebDataset's own examples; `second.jpg` or so the other picture of a pair;
`instances.json` the run lengths of each box's outline, as COCO writes them; a clip is a video (`mp4`, `webm` and so
on), or `frames.0000.png` and so on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, final

import numpy as np

from onestage.data.decode import EXTENSIONS, Stored, numbers_in
from onestage.data.frames import CLOSE, GONE, checked_times, stacked
from onestage.data.outlines import Outlines
from onestage.data.shard_fields import times_of
from onestage.data.video import VIDEOS, VideoFile
from onestage.sample import BadSample, Clip, Instances, Mask, Picture, Sample

_VIDEOS = frozenset(name[1:] for name in VIDEOS)
MASK, INSTANCES, FRAMES, SECOND = "seg.png", "instances.json", "frames.", "second."
KINDS = 1 << 12
"""Kinds of which it is remembered what they are."""
_LAZY = _VIDEOS | {MASK, INSTANCES}


@final
class StoredMask(Mask):
    """A mask that is a PNG of class numbers."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    def decode(self) -> np.ndarray:
        """uint8 (height, width).

        Raises:
            BadSample: when it does not decode, or has colours.
        """
        return numbers_in(self.stored.read())


@final
class StoredInstances(Instances):
    """Outlines as a list of COCO's run lengths."""

    def __init__(self, stored: Stored, picture: Picture) -> None:
        self.stored, self.picture = stored, picture

    def decode(self) -> np.ndarray:
        """bool (boxes, height, width).

        Raises:
            BadSample: when it is something else, or does not fit the picture.
        """
        try:
            told = json.loads(self.stored.read())
        except (ValueError, RecursionError) as error:
            raise BadSample(f"its outlines are no JSON ({str(error)[:80]})") from None
        if not isinstance(told, list):
            raise BadSample(f"its outlines are a {type(told).__name__}, not a list")
        return Outlines(told, self.picture.size).decode()


@final
class StoredFrames(Clip):
    """Frames that are a picture each, with their times."""

    def __init__(self, frames: Sequence[Stored], times: Sequence[float]) -> None:
        self.frames, self.at = tuple(frames), tuple(times)
        self.start, self.stop = 0.0, math.inf

    @property
    def size(self) -> tuple[int, int]:
        """From the header of the first frame.

        Raises:
            BadSample: when it is no image.
        """
        return self.frames[0].size

    def span(self) -> tuple[float, float]:
        """From the first frame to the end of the last, which stands as long as the others on average."""
        gaps = max(len(self.at) - 1, 1)
        return self.at[0], self.at[-1] + (self.at[-1] - self.at[0]) / gaps

    def middle(self) -> float:
        """The time of the middle frame."""
        return self.at[len(self.at) // 2]

    def times(self) -> tuple[float, ...]:
        return self.at

    def decode(self, times: Sequence[float], short: int | None = None) -> np.ndarray:
        """The frames that are shown at the given times, uint8 (frames, height, width, 3).

        Raises:
            BadSample: when one does not decode, or has another size than the others.
        """
        checked_times(times)
        if times[-1] > self.at[-1] + GONE:
            raise BadSample(f"ends at {self.at[-1]:g} s, before {times[-1]:g} s")
        last = np.searchsorted(self.at, np.asarray(times) + CLOSE, side="right") - 1
        return stacked([self.frames[number] for number in last.clip(0).tolist()], short)


@lru_cache(KINDS)
def is_special(kind: str) -> bool:
    """Whether a member is read only when it is decoded, and is no picture of its own."""
    return kind in _LAZY or kind.startswith((FRAMES, SECOND))


@lru_cache(KINDS)
def is_picture(kind: str) -> bool:
    """Whether a member may be the picture of its sample."""
    return f".{kind.rpartition('.')[2]}" in EXTENSIONS and not is_special(kind)


def with_members(sample: Sample, members: Mapping[str, Stored], given: Any) -> Sample:
    """A sample with its special members, by their kinds.

    Raises:
        BadSample: when there is not a time for each frame of its clip.
    """
    if not members:
        return sample
    mask, instances = members.get(MASK), members.get(INSTANCES)
    return replace(
        sample,
        second=next((stored for kind, stored in members.items() if kind.startswith(SECOND)), None),
        mask=None if mask is None else StoredMask(mask),
        instances=None if instances is None else StoredInstances(instances, sample.picture),
        clip=_clip(members, times_of(given)),
    )


def _clip(members: Mapping[str, Stored], times: tuple[float, ...]) -> Clip | None:
    video = next((stored for kind, stored in members.items() if kind in _VIDEOS), None)
    if video is not None:
        return VideoFile(video)
    frames = [members[kind] for kind in sorted(members) if kind.startswith(FRAMES)]
    if len(frames) != len(times) or list(times) != sorted(times):
        raise BadSample(f"its clip has {len(frames)} frames and {len(times)} times; expected one each, in order")
    return StoredFrames(frames, times) if frames else None
