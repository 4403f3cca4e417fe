"""How far a run is: a bar on a terminal, one plain line every few seconds elsewhere. Both on standard error.

The time left comes from the rate of the last minute of steps, not from the mean since the start, so that
compilation, a cold cache or the time before a resume do not falsify it.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO, final

WINDOW = 60.0
"""Seconds over which the rate is taken."""


@final
class Rate:
    """Steps a second over the recent past.

    Args:
        window: seconds that count as recent.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, step: int) -> None:
        """`step` steps are done at `now` (seconds on any clock that only goes forward)."""
        # The last mark is moved rather than followed while it is near the one before, so that marks stay few.
        if len(self._marks) > 1 and self._marks[-1][0] - self._marks[-2][0] < self._window / 32:
            self._marks.pop()
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] >= self._window:
            self._marks.popleft()

    def remaining(self, total: int) -> float | None:
        """Seconds until `total` steps are done; None while no rate is known."""
        if len(self._marks) < 2:
            return None
        (earlier, first), (later, last) = self._marks[0], self._marks[-1]
        if last <= first or later <= earlier:
            return None
        return max(total - last, 0) * (later - earlier) / (last - first)


@final
class Progress:
    """The display of a run; a context manager.

    Args:
        total: steps of the whole run.
        start: steps done already.
        stream: where to write; standard error unless given. A bar when it is a terminal.
        every: seconds between two plain lines.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        stream: TextIO | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        out = sys.stderr if stream is None else stream
        self._total, self._clock = total, clock
        self._every = 0.25 if out.isatty() else every
        self._display: _Display = _Bar(out, total, start) if out.isatty() else _Lines(out)
        self._rate = Rate()
        self._fields: dict[str, str] = {}
        self._shown = -float("inf")

    def update(self, step: int, fields: Mapping[str, str] | None = None) -> None:
        """Say that `step` steps are done. Cheap enough for every step.

        Args:
            fields: what to show beside it, ready to read, in order (`{"align": "0.613", "img/s": "812"}`).
                They stay until others are given.
        """
        now = self._clock()
        self._rate.mark(now, step)
        if fields is not None:
            self._fields = dict(fields)
        if now - self._shown >= self._every or step >= self._total:
            self._shown = now
            text = " | ".join(f"{name} {value}" for name, value in self._fields.items())
            self._display.show(step, self._total, text, duration(self._rate.remaining(self._total)))

    def note(self, line: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        self._display.note(line)

    def __enter__(self) -> Progress:
        self._display.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `5 h 02 min`, `2 d 03 h`; `?` when unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24:02d} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class _Display(ABC):
    """Where progress is shown."""

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def show(self, step: int, total: int, text: str, left: str) -> None: ...

    @abstractmethod
    def note(self, line: str) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@final
class _Lines(_Display):
    """Plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def open(self) -> None:
        pass

    def show(self, step: int, total: int, text: str, left: str) -> None:
        self.note(" | ".join(part for part in (f"step {step}/{total}", text, f"ETA {left}") if part))

    def note(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


@final
class _Bar(_Display):
    """A bar drawn by rich, without a thread of its own: `Progress` says when to draw."""

    def __init__(self, stream: TextIO, total: int, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("ETA {task.fields[left]}", markup=False),
            console=Console(file=stream),
            auto_refresh=False,
        )
        self._task = self._bars.add_task("", total=total, completed=start, text="", left="?")

    def open(self) -> None:
        self._bars.start()

    def show(self, step: int, total: int, text: str, left: str) -> None:
        self._bars.update(self._task, completed=step, text=text, left=left, refresh=True)

    def note(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()
