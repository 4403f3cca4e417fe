"""Which frames of a clip a view is made of."""

from __future__ import annotations

from typing import Annotated, final

from pydantic import Field

from onestage.spec import spec


@final
@spec
class Frames:
    """`count` frames at even distances, from a window of `seconds` that lies anywhere in the clip."""

    count: Annotated[int, Field(ge=2, le=1024)] = 8
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of the window; empty, or longer than the clip: all of it."""

    def times(self, moment: float, start: float, stop: float) -> tuple[float, ...]:
        """Of the frames: the middles of equal parts of the window, in order.

        Args:
            moment: where the window lies, from as early (0) to as late (1) as it can.
            start, stop: of the clip, in seconds; so are the times.
        """
        window = min(self.seconds or stop - start, stop - start)
        first = start + moment * (stop - start - window)
        return tuple(first + window * (number + 0.5) / self.count for number in range(self.count))
