"""Which of a sample's texts is read: any of them, or short ones first.

Captions of different detail in one batch speak against one another: to "a seven", a picture of a seven under a longer
caption is a negative. A small model then learns what tells captions apart soonest, colours, and stays there. Reading
the shortest caption alone at first (a curriculum: Bengio et al., ICML 2009) lets it learn the things themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, final

import numpy as np
from pydantic import Field

from onestage.spec import spec

Share = Annotated[float, Field(ge=0, le=1)]


@final
@spec
class ShortFirst:
    """Only the first text of a sample until `start` of the run; from there to `end` others come in, up to `others`."""

    start: Share = 0.4
    end: Share = 0.8
    others: Share = 0.8
    """Share of texts other than the first, from `end` on."""

    def share(self, progress: float) -> float:
        """How often another text than the first is read, at a progress in [0, 1]."""
        width = max(self.end - self.start, 1e-9)
        return self.others * min(max((progress - self.start) / width, 0.0), 1.0)


def in_turn(texts: Sequence[str], first: int, epoch: int) -> str:
    """Each text of a sample in one of as many epochs, beginning with any of them."""
    return texts[(first + epoch) % len(texts)]


def choose(texts: Sequence[str], rng: np.random.Generator, policy: ShortFirst | None, progress: float) -> str:
    """One text of a sample: every text alike, or as the policy says."""
    if policy is None or len(texts) == 1:
        return texts[int(rng.integers(len(texts)))]
    if rng.random() < policy.share(progress):
        return texts[1 + int(rng.integers(len(texts) - 1))]
    return texts[0]
