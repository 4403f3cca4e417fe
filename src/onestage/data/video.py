"""Clips: spans of video files, through PyAV, and folders of frames. Frames are found by their times.

A video is opened by the demuxers named here alone and may name no other file: some of FFmpeg's formats are lists of
what else to open.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from onestage.data.decode import EXTENSIONS, MAX_PIXELS, File, Stored
from onestage.data.listing import ending
from onestage.sample import BadSample, Clip, Picture
from onestage.spec import UserError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".ogv"})
OPTIONS = {"format_whitelist": "mov,matroska,webm,avi,mpeg,mpegts,flv,ogg", "protocol_whitelist": "file"}
MAX_FRAMES = 4096
"""Of one decoding."""
MAX_BYTES = 2 << 30
"""Of the pixels of one decoding."""
SKIP = 4.0
"""Seconds: a gap that is longer is not decoded through, but sought over."""
CLOSE = 1e-4
"""Seconds by which a time may miss a frame's own by rounding."""
GONE = 1.0
"""Seconds for which a last frame is taken to stand; two of its kind, where frames are rarer."""


class Shown(NamedTuple):
    """A decoded frame, and its time in seconds from the start of the video."""

    time: float
    frame: VideoFrame


@final
class VideoFile(Clip):
    """A span of a video, which is a file or a member of a shard; without one, all of it."""

    def __init__(self, path: Path | Stored, start: float = 0.0, stop: float = math.inf) -> None:
        self.path, self.start, self.stop = path, start, stop

    def middle(self) -> float:
        """The time half way.

        Raises:
            BadSample: when the file cannot be opened.
        """
        if math.isfinite(self.stop):
            return (self.start + self.stop) / 2
        with opened(self.path) as (_, stream):
            told = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        if told is None:  # Matroska says how long the file is, of which the pictures may be a part
            times = self.times()
            if not times:
                raise BadSample("no frames in it")
            told = times[-1]
        return (self.start + told) / 2

    def times(self) -> tuple[float, ...]:
        """Of its frames, from the packets; nothing is decoded.

        Raises:
            BadSample: when the file cannot be read.
        """
        found = []
        with opened(self.path) as (container, stream):
            base, offset = _base(stream)
            _seek(container, stream, self.start)
            for packet in container.demux(stream):
                if packet.dts is not None and packet.dts * base - offset >= self.stop:
                    break
                if packet.pts is not None and not packet.is_discard:
                    found.append(packet.pts * base - offset)
        return tuple(time for time in sorted(found) if self.start - CLOSE <= time < self.stop - CLOSE)

    def decode(self, times: Sequence[float], short: int | None = None) -> UInt8[np.ndarray, "frames height width 3"]:
        """The frames that are shown at the given times: each the last one that began before.

        Raises:
            BadSample: when the file does not decode, or ends before the last time.
        """
        checked_times(times)
        found: list[np.ndarray] = []
        with opened(self.path) as (container, stream):
            for shown in _shown(container, stream, times):
                found.append(_pixels(shown.frame, short))
                if found[0].nbytes * len(times) > MAX_BYTES or found[0].shape != found[-1].shape:
                    raise BadSample(
                        f"{len(times)} frames of {found[-1].shape} pixels are too many, or of several sizes"
                    )
        return np.stack(found)


@final
class FrameFolder(Clip):
    """A folder of images that are the frames of a clip, in the order of their numbers.

    Args:
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.start, self.stop = 0.0, math.inf

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


@final
class MiddleFrame(Picture):
    """The middle frame of a clip, decoded once, by what is asked first."""

    def __init__(self, clip: VideoFile | FrameFolder) -> None:
        self.clip = clip
        self._pixels: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        pixels = self.decode()
        return pixels.shape[1], pixels.shape[0]

    def decode(self) -> np.ndarray:
        """Upright RGB.

        Raises:
            BadSample: when it does not decode.
        """
        if self._pixels is None:
            self._pixels = np.asarray(self.clip.decode([self.clip.middle()])[0])
        return self._pixels


def stacked(pictures: Sequence[Picture], short: int | None) -> UInt8[np.ndarray, "frames height width 3"]:
    """Pictures as the frames of a clip.

    Raises:
        BadSample: when one does not decode, or has another size than the others.
    """
    found: list[np.ndarray] = []
    for one in pictures:
        picture = Image.fromarray(one.decode())
        found.append(np.asarray(picture.resize(_shape(picture.width, picture.height, short), Image.Resampling.BOX)))
        if found[0].nbytes * len(pictures) > MAX_BYTES or found[0].shape != found[-1].shape:
            raise BadSample(f"{len(pictures)} frames of {found[-1].shape} pixels are too many, or of several sizes")
    return np.stack(found)


@contextmanager
def opened(path: Path | Stored) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video and its first stream of pictures. What goes wrong with it inside the block is a bad sample.

    Raises:
        UserError: when PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("videos are decoded by PyAV, which is not installed: pip install 'onestage[video]'") from None
    try:
        place = str(path) if isinstance(path, Path) else io.BytesIO(path.read())
        with av.open(place, mode="r", options=OPTIONS) as container:
            if not container.streams.video:
                raise BadSample("has no pictures")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BadSample("its pictures are in a code that is not known")
            if stream.width * stream.height > MAX_PIXELS:
                raise BadSample(f"{stream.width} x {stream.height} pixels, more than {MAX_PIXELS}")
            yield container, stream
    except (av.FFmpegError, OSError, ValueError) as error:
        name = path.name if isinstance(path, Path) else "its clip"
        raise BadSample(f"{name}: no video that can be read ({' '.join(str(error).split())[:120]})") from None


def checked_times(times: Sequence[float]) -> None:
    """Refuse times that no clip can be decoded at: a mistake of ours, so a `ValueError`."""
    if not 0 < len(times) <= MAX_FRAMES or list(times) != sorted(times) or not all(map(math.isfinite, times)):
        raise ValueError(f"{len(times)} times; expected 1 to {MAX_FRAMES}, in order")


def _base(stream: VideoStream) -> tuple[float, float]:
    """Seconds of the stream's unit, and when it starts."""
    base = float(stream.time_base or 0) or 1e-6
    return base, (stream.start_time or 0) * base


def _seek(container: InputContainer, stream: VideoStream, time: float) -> None:
    base, offset = _base(stream)
    container.seek(round((max(time, 0.0) + offset) / base), stream=stream)


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[Shown]:
    """Frames from where the container stands on; one without a time comes a frame's length after the one before."""
    base, offset = _base(stream)
    time = -1 / float(stream.average_rate or 25)
    for frame in container.decode(stream):
        time = time + 1 / float(stream.average_rate or 25) if frame.pts is None else frame.pts * base - offset
        yield Shown(time, frame)


def _from(container: InputContainer, stream: VideoStream, time: float) -> Iterator[Shown]:
    """Frames from the one that is shown at a time, or from one before it, on."""
    for start in (time, 0.0):
        _seek(container, stream, start)
        frames = _timed(container, stream)
        first = next(frames, None)
        if first is not None and (first.time <= time + CLOSE or start == 0.0):
            return chain((first,), frames)
    return iter(())


def _shown(container: InputContainer, stream: VideoStream, times: Sequence[float]) -> Iterator[Shown]:
    """What is shown at each time.

    Raises:
        BadSample: when the video ends before.
    """
    frames = _from(container, stream, times[0])
    shown, ahead = None, next(frames, None)
    stands = max(GONE, 2 / float(stream.average_rate or 25))
    for time in times:
        if ahead is not None and time - ahead.time > SKIP:
            frames = _from(container, stream, time)
            ahead = next(frames, None)
        while ahead is not None and ahead.time <= time + CLOSE:
            shown, ahead = ahead, next(frames, None)
        shown = shown or ahead  # nothing is shown before the first frame
        if shown is None or (ahead is None and time > shown.time + stands):
            raise BadSample(f"ends at {0.0 if shown is None else shown.time:g} s, before {time:g} s")
        yield shown


def _shape(width: int, height: int, short: int | None) -> tuple[int, int]:
    """(width, height), brought down."""
    scale = 1.0 if short is None else min(short / min(width, height), 1.0)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _pixels(frame: VideoFrame, short: int | None) -> np.ndarray:
    width, height = _shape(frame.width, frame.height, short)
    if frame.width * frame.height > MAX_PIXELS:
        raise BadSample(f"{frame.width} x {frame.height} pixels, more than {MAX_PIXELS}")
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), round(frame.rotation / 90)))
