"""The seekable sample stream: which sample stands at a number is a function of (seed, number) alone."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from onestage.data.random import generator


class Draw(NamedTuple):
    """Global number, the sample that stands there, and how often the source was passed through before."""

    number: int
    sample: int
    epoch: int


@final
class Stream:
    """Every epoch is a permutation of the source of its own.

    Args:
        seed: the run's seed.
        length: number of samples of the source.
    """

    def __init__(self, seed: int, length: int) -> None:
        self.seed, self.length = seed, length
        self._orders: dict[int, np.ndarray] = {}

    def at(self, number: int) -> Draw:
        """The draw at a global number."""
        epoch, position = divmod(number, self.length)
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch touches two epochs at the most
                del self._orders[min(self._orders)]
            self._orders[epoch] = generator(self.seed, "order", epoch).permutation(self.length)
        return Draw(number, int(self._orders[epoch][position]), epoch)
