"""Videos that tests write, and descriptions of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = [20 * number for number in range(12)]
"""Of the frames of a written video: each is grey, and lighter than the one before."""


def write(path: Path, levels: list[int] = LEVELS, rate: int = 10, codec: str = "mpeg4") -> Path:
    """A video of grey frames, with a key frame every fifth."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, "yuv420p", 5
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def spans(root: Path, **changes: Any) -> Path:
    """Two clips of one video; what of it is said lies in a second file."""
    write(root / "videos" / "v1.mkv")
    clips = [
        {"clip_id": "v1.0.mp4", "span": ["00:00:00.200", "00:00:00.500"], "text": "first"},
        {"clip_id": "v1.1.mp4", "span": [0.5, 1]},
    ]
    row = {"video_id": "v1", "url": "-", "clip": clips} | changes
    (root / "told.jsonl").write_text(f"{json.dumps(row)}\n")
    (root / "texts.jsonl").write_text('{"clip_id": "v1.1.mp4", "text": "second"}\n')
    return root / "told.jsonl"
