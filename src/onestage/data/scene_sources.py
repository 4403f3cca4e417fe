"""`scenes-pairs` and `scenes-clips`: two scenes and a statement on them, and scenes in which a digit moves.

As `scenes`, they are drawn from (seed, index) when they are decoded; digits of the test split never appear in train.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from onestage.data.builtin import LENGTH, SIZE, VERSION, Drawn, Split, least
from onestage.data.frames import checked_times, stacked
from onestage.data.random import generator
from onestage.data.scene import WORDS, draw_scene
from onestage.data.scene_words import Motion, motion, moved_to, pair_statement
from onestage.data.statements import TRUTH
from onestage.roles import Sample, Source
from onestage.sample import BadSample, Clip

FRAMES, RATE = 8, 8.0
"""Of a clip, and a second."""


@final
class ScenePairs(Source):
    """Two scenes, and what is said of them, which is as often true as false and needs both to be seen (as NLVR2).

    Raises:
        UserError: for a size at which small digits cannot be drawn.
    """

    def __init__(self, split: Split = "train", length: int | None = None, size: int = SIZE, seed: int = 0) -> None:
        self.name, self.split = f"scenes-pairs:{split}", split
        self.length, self.size, self.seed = length or LENGTH[split], least(size), seed
        self.verdicts = TRUTH

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = generator(self.seed, self.name, index)
        first, second = draw_scene(rng, self.split), draw_scene(rng, self.split)
        return Sample(
            key=str(index),
            picture=Drawn(first, self.size),
            second=Drawn(second, self.size),
            statement=pair_statement(first, second, rng),
        )

    def fingerprint(self) -> str:
        return f"scenes-pairs-{VERSION}-{self.split}-{self.length}-{self.size}-{self.seed}"


@final
class DrawnClip(Clip):
    """A digit's way over a scene, `FRAMES` frames of it, drawn when they are asked for."""

    def __init__(self, moves: Motion, side: int) -> None:
        self.moves, self.side = moves, side
        self.start, self.stop = 0.0, FRAMES / RATE

    @property
    def size(self) -> tuple[int, int]:
        """The scene's."""
        return self.side, self.side

    def span(self) -> tuple[float, float]:
        """All of it."""
        return self.start, self.stop

    def middle(self) -> float:
        """The time of the middle frame."""
        return FRAMES // 2 / RATE

    def times(self) -> tuple[float, ...]:
        return tuple(number / RATE for number in range(FRAMES))

    def decode(self, times: Sequence[float], short: int | None = None) -> np.ndarray:
        """The frames that are shown at the given times, uint8 (frames, side, side, 3).

        Raises:
            BadSample: when one lies behind the clip's end.
        """
        checked_times(times)
        if times[-1] > self.stop:
            raise BadSample(f"ends at {self.stop:g} s, before {times[-1]:g} s")
        numbers = [min(max(int(time * RATE + 1e-4), 0), FRAMES - 1) for time in times]
        ways = [number / (FRAMES - 1) for number in numbers]
        return stacked([Drawn(moved_to(self.moves, way), self.side) for way in ways], short)


@final
class SceneClips(Source):
    """Clips in which a digit crosses a scene as the text says; the picture is the middle frame.

    Raises:
        UserError: for a size at which small digits cannot be drawn.
    """

    def __init__(self, split: Split = "train", length: int | None = None, size: int = SIZE, seed: int = 0) -> None:
        self.name, self.split = f"scenes-clips:{split}", split
        self.length, self.size, self.seed = length or LENGTH[split], least(size), seed
        self.classes = WORDS
        self.has_texts = self.has_labels = self.has_clips = True
        self.keeps_captions = frozenset()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = generator(self.seed, self.name, index)
        moves = motion(draw_scene(rng, self.split), rng)
        return Sample(
            key=str(index),
            picture=Drawn(moved_to(moves, FRAMES // 2 / (FRAMES - 1)), self.size),
            texts=(moves.caption,),
            label=moves.scene.digits[0].value,
            clip=DrawnClip(moves, self.size),
        )

    def fingerprint(self) -> str:
        return f"scenes-clips-{VERSION}-{self.split}-{self.length}-{self.size}-{self.seed}"
