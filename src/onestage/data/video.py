"""Clips that are spans of video files, through PyAV. Frames are found by their times.

A video is opened by the demuxers named here alone and may name no other file: some of FFmpeg's formats are lists of
what else to open.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from onestage.data.decode import MAX_PIXELS, Stored
from onestage.data.frames import CLOSE, GONE, MAX_BYTES, FrameFolder, checked_times, fitted
from onestage.sample import BadSample, Clip, Picture
from onestage.spec import UserError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".ogv"})
OPTIONS = {"format_whitelist": "mov,matroska,webm,avi,mpeg,mpegts,flv,ogg", "protocol_whitelist": "file"}
SKIP = 4.0
"""Seconds: a gap that is longer is not decoded through, but sought over."""


class Shown(NamedTuple):
    """A decoded frame, and its time in seconds from the start of the video."""

    time: float
    frame: VideoFrame


@final
class VideoFile(Clip):
    """A span of a video, which is a file or a member of a shard; without one, all of it."""

    def __init__(self, path: Path | Stored, start: float = 0.0, stop: float = math.inf) -> None:
        self.path, self.start, self.stop = path, start, stop

    @property
    def size(self) -> tuple[int, int]:
        """Of the file's first frame.

        Raises:
            BadSample: when it does not decode.
        """
        with opened(self.path) as (container, stream):
            for shown in _timed(container, stream):
                width, height = shown.frame.width, shown.frame.height
                return (width, height) if round(shown.frame.rotation / 90) % 2 == 0 else (height, width)
        raise BadSample("no frames in it")

    def middle(self) -> float:
        """The time half way.

        Raises:
            BadSample: when the file cannot be opened.
        """
        return sum(self.span()) / 2

    def span(self) -> tuple[float, float]:
        """From its start to its stop; of a whole file, to where that says it ends, else to its last frame.

        Raises:
            BadSample: when the file cannot be opened.
        """
        if math.isfinite(self.stop):
            return self.start, self.stop
        with opened(self.path) as (_, stream):
            told = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        if told is None:  # Matroska says how long the file is, of which the pictures may be a part
            times = self.times()
            if not times:
                raise BadSample("no frames in it")
            told = times[-1]
        return self.start, told

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


def _pixels(frame: VideoFrame, short: int | None) -> np.ndarray:
    width, height = fitted(frame.width, frame.height, short)
    if frame.width * frame.height > MAX_PIXELS:
        raise BadSample(f"{frame.width} x {frame.height} pixels, more than {MAX_PIXELS}")
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), round(frame.rotation / 90)))
