"""The seekable sample stream: which sample stands at a number is a function of (seed, number) alone.

Small sources are permuted by an array. Of large ones no array is kept: a Feistel network over the least even number
of bits permutes their numbers, and what falls outside of them is permuted again until it falls inside (cycle walking:
Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), fewer than four times on average.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from onestage.data.random import generator

ARRAY = 1 << 16
"""Sources up to this length are permuted by an array, of half a megabyte at the most."""
ROUNDS = 6
_MASK = (1 << 64) - 1


class Draw(NamedTuple):
    """Global number, the sample that stands there, how often its source was passed through before, and which part of
    a mixture the source is."""

    number: int
    sample: int
    epoch: int
    part: int = 0


@final
class Feistel:
    """A permutation of the numbers below `length` that is computed, not kept.

    Args:
        keys: one 64-bit number for each round.
    """

    def __init__(self, length: int, keys: tuple[int, ...]) -> None:
        self.length, self.keys = length, keys
        self.half = max((length - 1).bit_length() + 1, 2) // 2
        self.mask = (1 << self.half) - 1

    def __call__(self, number: int) -> int:
        """Where `number` goes."""
        half, mask = self.half, self.mask
        while True:
            left, right = number >> half, number & mask
            for key in self.keys:
                left, right = right, left ^ (_mixed(right ^ key) & mask)
            number = left << half | right
            if number < self.length:
                return number


def _mixed(number: int) -> int:
    """A number whose bits all depend on all bits of another (the finaliser of SplitMix64: Steele, Lea and Flood,
    OOPSLA 2014)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


@final
class Stream:
    """Every epoch is a permutation of the source of its own.

    Args:
        seed: the run's seed.
        length: number of samples of the source.
        purpose: tells streams of one run apart.
    """

    def __init__(self, seed: int, length: int, purpose: str = "order") -> None:
        self.seed, self.length, self.purpose = seed, length, purpose
        self._orders: dict[int, np.ndarray | Feistel] = {}

    def at(self, number: int) -> Draw:
        """The draw at a global number."""
        epoch, position = divmod(number, self.length)
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch touches two epochs at the most
                del self._orders[min(self._orders)]
            self._orders[epoch] = self._order(epoch)
        order = self._orders[epoch]
        return Draw(number, order(position) if isinstance(order, Feistel) else int(order[position]), epoch)

    def _order(self, epoch: int) -> np.ndarray | Feistel:
        rng = generator(self.seed, self.purpose, epoch)
        if self.length <= ARRAY:
            return rng.permutation(self.length)
        return Feistel(self.length, tuple(rng.integers(1 << 64, size=ROUNDS, dtype=np.uint64).tolist()))
