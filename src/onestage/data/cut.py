"""Cutting clips out of videos, into a folder that is a source itself: `video:FOLDER`.

Every frame of a clip is decoded and written anew with its own time, so a clip holds exactly its span; a copy of the
stream would begin at a key frame before it. What is there already is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from onestage.data.listing import ending
from onestage.data.parallel import in_processes
from onestage.data.quarantine import Quarantine
from onestage.data.video import VIDEOS
from onestage.data.videos import Videos
from onestage.roles import Source
from onestage.sample import BadSample, Clip, Sample
from onestage.spec import UserError
from onestage.storage import write_atomic

PLAN, QUARANTINE, METADATA = "cut.json", "quarantine.jsonl", "metadata.jsonl"
CODEC, QUALITY = "libx264", {"crf": "18", "preset": "fast"}
TICKS = 90_000
"""Of a second, in the files that are written."""
CHUNK = 32
"""Frames that are held at a time."""


@final
class Cut(NamedTuple):
    """How many clips lie in the folder, and how many could not be cut."""

    clips: int
    bad: int


def cut(source: Source, out: Path, size: int | None, workers: int, tell: Callable[[int, int], None]) -> Cut:
    """Write every clip of a source as `out/KEY.mp4`, and their texts and labels as `out/metadata.jsonl`.

    Args:
        size: frames whose shorter side is longer are brought down to it.
        tell: is told how many clips are done, of how many.

    Raises:
        UserError: when the source has no clips, the folder holds something else or lies among the videos, or nothing
            could be cut.
    """
    if not source.has_clips:
        raise UserError(f"data cut: {source.name} has no clips; expected video:FOLDER or video:FILE.jsonl")
    if isinstance(source, Videos) and out.resolve().is_relative_to(source.folder.resolve()):
        raise UserError(
            f"{out}: lies in {source.folder}, the folder of the videos, and would be taken for some of them"
        )
    plan = json.dumps({"source": source.name, "fingerprint": source.fingerprint(), "size": size}, indent=1) + "\n"
    _begin(out, plan)
    written: dict[str, dict[str, object]] = {}
    for done, row in enumerate(in_processes(partial(_one, source, out, size), range(len(source)), workers), start=1):
        if row is not None and row["file_name"] in written:
            raise UserError(f"{source.name}: two clips are called {row['file_name']}; a clip's name stands once")
        if row is not None:
            written[str(row["file_name"])] = row
        tell(done, len(source))
    bad = Quarantine(out / QUARANTINE).count()
    if not written:
        raise UserError(f"{source.name}: no clip could be cut; the reasons are in {out / QUARANTINE}")
    write_atomic(out / METADATA, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in written.values()))
    return Cut(len(written), bad)


def _begin(out: Path, plan: str) -> None:
    """Make the folder, or go on in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        known = (out / PLAN).read_text(encoding="utf-8") if (out / PLAN).is_file() else None
        if known is None and any(out.iterdir()):
            raise UserError(f"{out}: holds files, but no cutting to go on with; choose an empty or a new folder")
    except (OSError, ValueError) as error:
        raise UserError(f"{out}: cannot be used ({error})") from None
    if known is not None and known != plan:
        raise UserError(
            f"{out}: holds clips of another source, of changed data or of another size; choose another folder"
        )
    write_atomic(out / PLAN, plan)


def _one(source: Source, out: Path, size: int | None, index: int) -> dict[str, object] | None:
    """Cut one clip, and say what is known of it; None for one that is bad."""
    key, quarantine = str(index), Quarantine(out / QUARANTINE)
    try:
        sample = source[index]
        key = sample.key
        if sample.clip is None:
            raise BadSample("it has no clip")
        name = f"{key[: -len(ending(key))] if ending(key) in VIDEOS else key}.mp4"
        path = out / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            try:
                write_clip(sample.clip, temporary, size)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return _described(name, sample, source)
    except BadSample as error:
        quarantine.note(source.name, key, str(error))
        return None
    except OSError as error:
        raise UserError(
            f"{out}: a clip cannot be written ({error.strerror}). Free some space, and type it again."
        ) from None


def _described(name: str, sample: Sample, source: Source) -> dict[str, object]:
    row: dict[str, object] = {"file_name": name}
    if sample.texts:
        row["text"] = list(sample.texts)
    if sample.label is not None:
        row["label"] = source.classes[sample.label]
    return row


def write_clip(clip: Clip, path: Path, size: int | None) -> None:
    """Write a clip's frames as H.264 in MP4, its first at 0 s; an odd last row or column is left out.

    Raises:
        BadSample: when it does not decode, or has no frame.
    """
    import av

    times: Sequence[float] = list(clip.times())
    if not times:
        raise BadSample(f"no frame between {clip.start:g} s and {clip.stop:g} s")
    frames = _frames(clip, times, size)
    first = next(frames)
    rate = Fraction(len(times) - 1, 1) / Fraction(times[-1] - times[0]) if len(times) > 1 else Fraction(25)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(CODEC, rate=rate.limit_denominator(1001), options=QUALITY)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        for time, pixels in zip(times, chain((first,), frames), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round((time - times[0]) * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _frames(clip: Clip, times: Sequence[float], size: int | None) -> Iterator[np.ndarray]:
    """All frames, with sides that are even numbers."""
    shape: tuple[int, int] | None = None
    for start in range(0, len(times), CHUNK):
        chosen = clip.decode(times[start : start + CHUNK], size)
        height, width = chosen.shape[1] // 2 * 2, chosen.shape[2] // 2 * 2
        if min(height, width) < 2 or (height, width) != (shape or (height, width)):
            raise BadSample(f"its frames are {width} x {height} pixels, too small, or not all of one size")
        shape = height, width
        for pixels in chosen:
            yield np.ascontiguousarray(pixels[:height, :width])
