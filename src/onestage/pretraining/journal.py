"""What a run writes down as it goes: its metrics and its progress. Of several processes, rank 0 alone has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import final

from onestage.distributed import rank
from onestage.engine.metrics import Metrics
from onestage.engine.progress import Progress
from onestage.pretraining.lines import Alarms, short


def journal(run: Path, start: int, total: int) -> Journal:
    """This process's journal of a run that goes on after `start` of `total` steps.

    Raises:
        UserError: when the metrics cannot be read or written.
    """
    return Written(run, start, total) if rank() == 0 else Unwritten()


class Journal(AbstractContextManager["Journal"], ABC):
    """A context manager that is told of lines and results."""

    @abstractmethod
    def line(self, step: int, seconds: float, shown: Mapping[str, float], beside: Mapping[str, float]) -> None:
        """Numbers of the last steps; those beside are not shown as progress, nor what is watched of terms."""

    @abstractmethod
    def results(self, step: int, seconds: float, results: Mapping[str, float]) -> None:
        """What an evaluation found."""


@final
class Written(Journal):
    """Into `metrics.jsonl`, and onto standard error."""

    def __init__(self, run: Path, start: int, total: int) -> None:
        self._metrics = Metrics(run / "metrics.jsonl", start)
        self._progress = Progress(total, start)
        self._alarms = Alarms(self._progress.note)
        self._open = ExitStack()

    def line(self, step: int, seconds: float, shown: Mapping[str, float], beside: Mapping[str, float]) -> None:
        self._metrics.write({"step": step, "seconds": seconds, **shown, **beside})
        self._progress.update(step, short(shown))
        self._alarms.hear(shown)

    def results(self, step: int, seconds: float, results: Mapping[str, float]) -> None:
        self._metrics.write({"step": step, "seconds": seconds, **results})
        self._progress.note(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in results.items()))

    def __enter__(self) -> Written:
        self._open.enter_context(self._metrics)
        self._open.enter_context(self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


@final
class Unwritten(Journal):
    """Nowhere."""

    def line(self, step: int, seconds: float, shown: Mapping[str, float], beside: Mapping[str, float]) -> None:
        pass

    def results(self, step: int, seconds: float, results: Mapping[str, float]) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
