"""`video:FOLDER[,fps=N]` and `video:[FOLDER,]FILE.jsonl[,TEXTS.jsonl]`: clips with their texts and classes.

A folder has video files or, where it has none, folders of frames (N a second, 25 unless given); sub-folders are
classes, and `metadata.jsonl`, `.csv` or `.parquet` gives texts and labels, as in folders of images.

FILE.jsonl is as HD-VILA-100M's: a video a line, `{"video_id", "clip": [{"clip_id", "span": [FROM, TO], "text"}]}`, the
times as HH:MM:SS.mmm or in seconds. TEXTS.jsonl has the transcripts, `{"clip_id", "text"}` a line. The videos lie in
FOLDER, or beside the file: cut ones are named by their clip, whole ones by their video, without the ending. (Xue et
al., arXiv:2111.10337, and its data set's page.)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

from onestage.data.annotated import fingerprint_of, inside, keys_in, listed, needed
from onestage.data.decode import EXTENSIONS
from onestage.data.described import METADATA, json_rows, read_metadata
from onestage.data.entries import Strings
from onestage.data.folders import in_order
from onestage.data.frames import FrameFolder
from onestage.data.keys import USUAL
from onestage.data.listing import ending, names_in
from onestage.data.named import Named
from onestage.data.paths import Shape, paths_of
from onestage.data.video import VIDEOS, MiddleFrame, VideoFile
from onestage.roles import Source
from onestage.sample import BadSample, Sample
from onestage.spec import UserError

PREFIX = "video:"
FORM = "video:FOLDER|FILE.jsonl"
ABOUT = "video files or folders of frames; or spans of videos with transcripts, as HD-VILA writes them"
SHAPES: tuple[Shape, ...] = (("folder",), ("file",), ("folder", "file"), ("file", "file"), ("folder", "file", "file"))
RATE = 25.0
"""Frames per second of folders of frames, unless given."""
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", re.ASCII)


class Row(NamedTuple):
    """A clip: its name, its file or folder, its span where it has one, its texts, and the name of its class."""

    key: str
    file: str
    span: tuple[float, float] | None
    texts: tuple[str, ...]
    label: str | None


class Packed(NamedTuple):
    """Many clips: a JSON list of each one's `Row`, their files, their labels, and whether any has a text."""

    rows: Strings
    files: Strings
    labels: frozenset[str]
    captioned: bool


@final
class Videos(Source):
    """Clips. The picture of a sample is its clip's middle frame.

    Args:
        rate: frames per second where the clips are folders; None where they are files.
    """

    def __init__(
        self, name: str, folder: Path, clips: Packed, classes: tuple[str, ...], rate: float | None, fingerprint: str
    ) -> None:
        self.name, self.folder, self.rows, self.classes, self.rate = name, folder, clips.rows, classes, rate
        self.has_clips, self.has_labels, self.has_texts = True, bool(classes), clips.captioned
        self.keeps_captions = frozenset({"crop", "colour"} if self.has_texts else {"crop", "flip", "colour"})
        self._number = {label: number for number, label in enumerate(classes)}
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        key, file, span, texts, label = json.loads(self.rows[index])
        if self.rate is None and ending(file) not in VIDEOS:
            raise BadSample(f"there is no video {file}.* in {self.folder}")
        start, stop = span or (0.0, math.inf)
        path = self.folder / file
        clip = VideoFile(path, start, stop) if self.rate is None else FrameFolder(path, self.rate)
        number = None if label is None else self._number[label]
        return Sample(key=key, picture=MiddleFrame(clip), texts=tuple(texts), label=number, clip=clip)

    def fingerprint(self) -> str:
        """Hash of what describes the clips, the files' names, and the sizes of a few thousand."""
        return self._fingerprint


def open_videos(text: str) -> Videos:
    """A source by what a user types: video:FOLDER[,fps=N] or video:[FOLDER,]FILE.jsonl[,TEXTS.jsonl].

    Raises:
        UserError: when a path is missing, holds no videos or frames, or a line is in another format.
    """
    words, rate = _rate(text, text.removeprefix(PREFIX))
    folder, *files = paths_of(text, words, FORM, *SHAPES)
    if folder.is_file() and ending(folder.name) in VIDEOS:
        raise UserError(f"{text}: {folder} is a video; name its folder, or a file that describes spans: {FORM}")
    if folder.is_file():
        folder, files = folder.parent, [folder, *files]
    try:
        if files:
            clips, frames = _packed(_spans(folder, files)), None
        else:
            rows, files, frames = _in_folder(folder, rate or RATE)
            clips = _packed(rows)
    except OSError as error:
        raise UserError(f"{text}: cannot be read ({error})") from None
    if rate is not None and frames is None:
        raise UserError(f"{text}: fps= is for folders of frames; video files have times of their own")
    classes = in_order(clips.labels)
    fingerprint = fingerprint_of(text, folder, clips.files, files, repr((frames, classes)))
    return Videos(text, folder, clips, classes, frames, fingerprint)


def _packed(rows: Iterable[Row]) -> Packed:
    """Of HD-VILA's hundred million clips no hundred million objects are kept."""
    packed, files, labels, captioned = Strings(), Strings(), set(), False
    for row in rows:
        packed.append(json.dumps(row))
        files.append(row.file)
        labels |= {row.label} - {None}
        captioned |= bool(row.texts)
    return Packed(packed, files, frozenset(labels), captioned)


def _rate(text: str, words: str) -> tuple[str, float | None]:
    paths, comma, option = words.rpartition(",")
    if not comma or not option.startswith("fps="):
        return words, None
    number = option.removeprefix("fps=")
    if not re.fullmatch(r"\d+(\.\d+)?", number, re.ASCII) or not 0 < float(number) < 1e4:
        raise UserError(f"{text}: fps={number} is no number of frames per second; expected video:FOLDER,fps=25")
    return paths, float(number)


def _in_folder(folder: Path, rate: float) -> tuple[list[Row], list[Path], float | None]:
    """The clips of a folder, the file that describes them, and the rate of frames where the clips are folders."""
    metadata = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if metadata is not None:
        entries = read_metadata(metadata, USUAL)
        rows = [Row(entry.file, entry.file, None, entry.texts, entry.label) for entry in entries]
        return rows, [metadata], None if any(ending(row.file) in VIDEOS for row in rows) else rate
    files = list(names_in(folder))
    videos = sorted(file for file in files if ending(file) in VIDEOS)
    found = videos or sorted({file.rpartition("/")[0] or "." for file in files if ending(file) in EXTENSIONS})
    if not found:
        raise UserError(f"{folder}: no videos and no folders of frames; videos end in {' '.join(sorted(VIDEOS))}")
    nested = all("/" in file for file in found)
    rows = [Row(file, file, None, (), file.split("/", 1)[0] if nested else None) for file in found]
    return rows, [], None if videos else rate


def _spans(folder: Path, files: list[Path]) -> Iterator[Row]:
    videos, texts = Named(folder, "videos", VIDEOS), _transcripts(files[1:])
    used = 0
    for number, told in enumerate(json_rows(files[0]), start=1):
        where = f"{files[0]}, video {number}"
        video = needed(where, told, "video_id", str)
        for one in listed(files[0], told, "clip", 'HD-VILA\'s lines, {"video_id", "clip": [{"clip_id", "span"}]}'):
            clip = inside(where, needed(where, one, "clip_id", str))
            name = clip.rpartition("/")[2]
            name = name[: -len(ending(name))] if ending(name) in VIDEOS else name
            span = _span(f"{where}, clip {clip}", one)
            said = texts.get(clip, one.get("text"))
            used += clip in texts
            own = (said.strip(),) if isinstance(said, str) and said.strip() else ()
            cut = name in videos
            yield Row(clip, videos.file(name) if cut else videos.file(video), None if cut else span, own, None)
    if texts and not used:
        raise UserError(f"{files[1]}: has a text for none of the clips of {files[0]} (the first: {next(iter(texts))})")


def _transcripts(files: list[Path]) -> Mapping[str, str]:
    where = [(f"{file}, entry {number}", row) for file in files for number, row in enumerate(json_rows(file), start=1)]
    return {needed(at, row, "clip_id", str): needed(at, row, "text", str) for at, row in where}


def _span(where: str, told: dict[str, Any]) -> tuple[float, float]:
    given = told.get("span")
    ends = [_seconds(one) for one in given] if isinstance(given, list) else []
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] < math.inf:
        raise UserError(f'{where}: span is {given!r:.60}; expected ["00:00:01.500", "00:00:09.000"] ({keys_in(told)})')
    return ends[0], ends[1]


def _seconds(given: Any) -> float:
    """Of a time; not a number where it is none."""
    if type(given) in {int, float}:
        return float(given) if abs(given) < 1e9 else math.nan
    clock = _CLOCK.fullmatch(given) if isinstance(given, str) else None
    return math.nan if clock is None else int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
