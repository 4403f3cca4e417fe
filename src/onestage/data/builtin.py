"""The built-in sources: `scenes` and `digits`. No download, no disk, the same everywhere."""

from __future__ import annotations

import hashlib
from typing import Literal, final

import numpy as np
from PIL import Image

from onestage.data.decode import Pixels
from onestage.data.random import generator
from onestage.data.scene import (
    LEAST_SIZE,
    WORDS,
    Scene,
    draw_scene,
    glyphs,
    instance_masks,
    pool,
    render,
    semantic_mask,
)
from onestage.data.scene_words import captions, one, questions
from onestage.roles import Mask, Picture, Sample, Source
from onestage.sample import Instances
from onestage.spec import UserError

Split = Literal["train", "test"]
LENGTH: dict[Split, int] = {"train": 20_000, "test": 2_000}
SIZE = 64
VERSION = "4"
"""Changes whenever the same index shows another scene."""


@final
class Drawn(Picture):
    """A scene that is drawn when it is decoded."""

    def __init__(self, scene: Scene, side: int) -> None:
        self.scene, self.side = scene, side

    @property
    def size(self) -> tuple[int, int]:
        return self.side, self.side

    def decode(self) -> np.ndarray:
        return render(self.scene, self.side)


@final
class DrawnMask(Mask):
    """The ink of a scene: 0 for the background, otherwise the digit's value plus one."""

    def __init__(self, scene: Scene, side: int) -> None:
        self.scene, self.side = scene, side

    def decode(self) -> np.ndarray:
        return semantic_mask(self.scene, self.side)


@final
class DrawnInstances(Instances):
    """The ink of each digit of a scene."""

    def __init__(self, scene: Scene, side: int) -> None:
        self.scene, self.side = scene, side

    def decode(self) -> np.ndarray:
        return instance_masks(self.scene, self.side)


def least(size: int) -> int:
    """The size of a scene in pixels.

    Raises:
        UserError: when small digits cannot be drawn at it.
    """
    if size < LEAST_SIZE:
        raise UserError(f"scenes of {size} pixels: a digit cannot be read below {LEAST_SIZE}")
    return size


@final
class Scenes(Source):
    """Digits on photographs with exact captions, labels, boxes, masks and questions, drawn from (seed, index).

    Captions name colours, places and small digits, so no crop, flip or change of colour keeps all of
    them true.

    Raises:
        UserError: for a size at which small digits cannot be drawn.
    """

    def __init__(self, split: Split = "train", length: int | None = None, size: int = SIZE, seed: int = 0) -> None:
        self.name = f"scenes:{split}"
        self.split: Split = split
        self.length, self.size, self.seed = length or LENGTH[split], least(size), seed
        self.classes = WORDS
        self.mask_classes = ("background", *WORDS)
        self.box_classes = WORDS
        self.has_texts = self.has_labels = self.has_masks = self.has_questions = True
        self.keeps_captions = frozenset()

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene:
        """The description of sample `index`."""
        return draw_scene(generator(self.seed, self.name, index), self.split)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        squares = [digit.square(self.size) for digit in scene.digits]
        return Sample(
            key=str(index),
            picture=Drawn(scene, self.size),
            texts=captions(scene),
            label=scene.digits[0].value,
            boxes=tuple((float(x), float(y), float(x + side), float(y + side)) for x, y, side in squares),
            box_labels=tuple(digit.value for digit in scene.digits),
            questions=questions(scene),
            mask=DrawnMask(scene, self.size),
            instances=DrawnInstances(scene, self.size),
        )

    def fingerprint(self) -> str:
        return f"scenes-{VERSION}-{self.split}-{self.length}-{self.size}-{self.seed}"


@final
class Digits(Source):
    """scikit-learn's handwritten digits, enlarged, with labels and short captions."""

    def __init__(self, split: Split = "train", size: int = 32) -> None:
        self.name = f"digits:{split}"
        self.size = size
        self.classes = WORDS
        self.has_texts = self.has_labels = True
        self.keeps_captions = frozenset({"colour"})
        self.indices = sorted(index for own in pool(split) for index in own)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        pictures, values = glyphs()
        number = self.indices[index]
        value = int(values[number])
        enlarged = pictures[number].resize((self.size, self.size), Image.Resampling.BICUBIC).convert("RGB")
        return Sample(key=str(number), picture=Pixels(np.asarray(enlarged)), texts=(one(WORDS[value]),), label=value)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self.indices).encode()).hexdigest()[:16]
        return f"digits-{digest}-{self.size}"
