"""The JPEGs of the loader's bench: a source's own, or about 500 x 375 pixels of the built-in photographs.

They are written as class folders, which torchvision reads, and as tar shards, which WebDataset reads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from onestage.data import generator, open_source
from onestage.data.decode import Stored
from onestage.data.pack import pack
from onestage.roles import BadSample
from onestage.spec import UserError

PICTURES = 256
CLASSES = 8
SHARDS = 8
SIZE = (500, 375)
NOISE = 6.0
"""Standard deviation: so that the files take as much room as those of cameras."""
QUALITY = 90


def prepare(data: str | None, folder: Path) -> list[bytes]:
    """Write the pictures to `folder/images` and `folder/shards`, and return their bytes.

    Raises:
        UserError: when the data hold no JPEG files.
    """
    files = list(_made() if data is None else _of(data))
    if len(files) < CLASSES:
        raise UserError(
            f"bench loader: {data} holds {len(files)} JPEGs that can be read; at least {CLASSES} are needed"
        )
    for number, content in enumerate(files):
        path = folder / "images" / f"class_{number % CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    megabytes = sum(map(len, files)) / 1e6 / SHARDS
    pack(open_source(str(folder / "images")), folder / "shards", None, megabytes, 0, lambda done, total: None)
    return files


def _of(data: str) -> Iterator[bytes]:
    source = open_source(data)
    step = max(len(source) // PICTURES, 1)
    for index in range(0, len(source), step)[:PICTURES]:
        try:
            picture = source[index].picture
            if isinstance(picture, Stored):
                content = picture.encoded()
                picture.decode()
                if content.startswith(b"\xff\xd8"):
                    yield content
        except BadSample:
            continue


def _made() -> Iterator[bytes]:
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(PICTURES):
        rng = generator(0, "bench", number)
        photograph = photographs[number % len(photographs)]
        share = rng.uniform(0.4, 1.0)
        height = photograph.height * share
        width = min(height * SIZE[0] / SIZE[1], photograph.width)
        left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
        scene = photograph.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        noisy = np.asarray(scene) + rng.normal(0, NOISE, (SIZE[1], SIZE[0], 3))
        coded = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(coded, "JPEG", quality=QUALITY)
        yield coded.getvalue()
