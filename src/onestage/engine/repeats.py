"""Repeated augmentation: a sample stands several times in a batch, each time with views of its own.

Hoffer et al. (arXiv:1901.09335) and Berman et al. (arXiv:1902.05509, section 3.2), as DeiT uses it: the stream holds
every sample `times` times in a row, and a batch is dealt out as to so many processes, so that copies lie far apart:
partners (i and i xor 1), which are blended, are never copies of one sample.
"""

from __future__ import annotations

from typing import final

from onestage.spec import UserError


@final
class Repeats:
    """Which sample of the stream stands at a number, and which copy of it.

    With hands = the least number of at least `times` with 2 hands dividing the batch, place p of a batch has its entry
    (p mod (batch / hands)) hands + p div (batch / hands).

    Raises:
        UserError: when a batch cannot be dealt out so.
    """

    def __init__(self, batch: int, times: int) -> None:
        self.batch, self.times = batch, times
        fitting = (hands for hands in range(times, batch // 2 + 1) if batch % (2 * hands) == 0)
        self.hands = next(fitting, 0) if times > 1 else 1
        if not self.hands:
            raise UserError(
                f"repeats: {times} copies of a sample cannot be dealt out over a batch of {batch}, half of which "
                f"needs a divisor that is at least {times}; use a multiple of {2 * times}"
            )

    def entry(self, number: int) -> tuple[int, int]:
        """The sample's number in the stream without copies, and which of its copies it is."""
        if self.times == 1:
            return number, 0
        step, place = divmod(number, self.batch)
        hand, turn = divmod(place, self.batch // self.hands)
        return divmod(step * self.batch + turn * self.hands + hand, self.times)

    def again(self, number: int) -> str:
        """What tells the draws of a copy from those of the first."""
        copy = self.entry(number)[1]
        return f"#{copy}" if copy else ""
