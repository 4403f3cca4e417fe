"""A sample as the members of a shard, in WebDataset's way: a kind for each, of which the picture is the first.

Files stay as they are, unless they are to be smaller: then pictures are JPEGs, clips are H.264 as `onestage data cut`
writes them, and all that is measured in pixels is brought down with them. A span of a longer video is written so too.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from onestage.data.cut import write_clip
from onestage.data.decode import MAX_BYTES, File, Stored, opened
from onestage.data.listing import ending
from onestage.data.shard_fields import MAX_FIELD
from onestage.data.shard_members import FRAMES, INSTANCES, MASK, SECOND
from onestage.data.video import VideoFile
from onestage.roles import BadSample, Picture, Sample
from onestage.sample import Clip

QUALITY = 92
"""Of the JPEGs that are written where pictures are resized."""
_KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "PPM": "ppm"}


class Coded(NamedTuple):
    """A picture's kind and bytes, its size (width, height), and that as a share of what it was."""

    kind: str
    content: bytes
    size: tuple[int, int]
    scale: float


def members_of(sample: Sample, size: int | None) -> dict[str, bytes]:
    """Kinds and contents of a sample's members.

    Args:
        size: what has a longer shorter side is brought down to it.

    Raises:
        BadSample: when something of it does not decode, or is more than a shard is read for.
    """
    coded = _picture(sample.picture, size)
    members = {coded.kind: coded.content}
    if sample.texts:
        members["txt"] = sample.texts[0].encode("utf-8", "replace")
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    if sample.second is not None:
        second = _picture(sample.second, size)
        members[f"{SECOND}{second.kind}"] = second.content
    if sample.mask is not None:
        members[MASK] = _png(_resized(sample.mask.decode(), coded))
    if sample.instances is not None:
        members[INSTANCES] = _json([_outline(_resized(mask, coded)) for mask in sample.instances.decode()], MAX_BYTES)
    frames, times = ({}, []) if sample.clip is None else _clip(sample.clip, size)
    told = _told(sample, coded.scale) | ({"times": times} if times else {})
    return members | frames | {"json": _json(told, MAX_FIELD)}


def _told(sample: Sample, scale: float) -> dict[str, Any]:
    """What the JSON of a sample says."""
    told: dict[str, Any] = {
        "key": sample.key,
        "texts": list(sample.texts) if len(sample.texts) > 1 else (),
        "boxes": [[side * scale for side in box] for box in sample.boxes],
        "box_labels": sample.box_labels,
        "box_crowds": sample.box_crowds,
        "box_areas": [area * scale**2 for area in sample.box_areas],
        "keypoints": [[(x * scale, y * scale, seen) for x, y, seen in points] for points in sample.keypoints],
        "questions": [[text, answers, key] for text, answers, key in sample.questions],
        "statement": sample.statement or (),
    }
    return {name: value for name, value in told.items() if value}


def _json(told: object, most: int) -> bytes:
    content = json.dumps(told, separators=(",", ":")).encode()
    if len(content) > most:
        raise BadSample(f"what is said of it takes {len(content)} bytes, more than {most}")
    return content


def _picture(picture: Picture, size: int | None) -> Coded:
    """The file as it is, unless it is to be smaller or is none."""
    width, height = shape = picture.size
    smaller = size is not None and min(shape) > size
    if isinstance(picture, Stored) and not smaller:
        content = picture.encoded()
        picture.decode()  # what does not decode to its end is not packed
        with opened(content) as image:
            return Coded(_KINDS.get(str(image.format), "jpg"), content, shape, 1.0)
    pixels = picture.decode()
    if size is None or not smaller:
        return Coded("png", _png(pixels), shape, 1.0)
    scale = size / min(shape)
    shape = (size, max(round(height * scale), size)) if width < height else (max(round(width * scale), size), size)
    coded = io.BytesIO()
    Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC).save(coded, "JPEG", quality=QUALITY)
    return Coded("jpg", coded.getvalue(), shape, scale)


def _png(pixels: np.ndarray) -> bytes:
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "PNG")
    return coded.getvalue()


def _resized(mask: np.ndarray, picture: Coded) -> np.ndarray:
    """A mask at the size of its picture: every pixel is the nearest one's."""
    if picture.scale == 1:
        return mask
    return np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))


def _outline(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's run lengths: down the columns, outside first."""
    flat = mask.T.reshape(-1)
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(turns, prepend=0, append=len(flat))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def _clip(clip: Clip, size: int | None) -> tuple[dict[str, bytes], list[float]]:
    """Members of a clip, and the times of its frames where each is a member of its own."""
    if isinstance(clip, VideoFile):
        whole = clip.start == 0 and math.isinf(clip.stop)
        if whole and size is None and isinstance(clip.path, Path):
            clip.decode([clip.middle()])
            return {ending(clip.path.name)[1:]: File(clip.path).read()}, []
        if whole and size is None and isinstance(clip.path, Stored):
            return {"mp4": clip.path.read()}, []
        with tempfile.TemporaryDirectory() as folder:
            write_clip(clip, Path(folder) / "clip.mp4", size)
            return {"mp4": File(Path(folder) / "clip.mp4").read()}, []
    times = list(clip.times())
    frames = {}
    for number, time in enumerate(times):
        coded = clip.decode([time], size)[0]
        frames[f"{FRAMES}{number:04}.png"] = _png(coded)
    return frames, times
