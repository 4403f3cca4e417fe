"""The loop: one flat function. It knows neither the method nor the data; evaluators come in as a list."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from onestage.data.parallel import none_lost
from onestage.distributed import agreed, align, rank
from onestage.engine.loader import batches
from onestage.engine.metrics import Meter
from onestage.engine.pieces import on_device
from onestage.engine.step import Stepped
from onestage.engine.together import telling, together
from onestage.pretraining.journal import journal
from onestage.pretraining.prepare import Prepared, default_workers, share_cores
from onestage.spec import Stopped
from onestage.storage import save

LOG_SECONDS = 2.0
"""Between two lines of metrics; waiting for the device is paid only then."""

Evaluation = Callable[[Prepared], dict[str, float]]


class Watched(NamedTuple):
    """What is looked at while a run trains: by one process alone, and by all of them together."""

    by_one: Sequence[Evaluation] = ()
    by_all: Sequence[Evaluation] = ()

    @property
    def anything(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.by_one or self.by_all)


class Progressed(NamedTuple):
    """Where a run is: what a checkpoint's `loop.json` holds."""

    step: int = 0
    texts: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None


def run_loop(prepared: Prepared, run: Path, start: Progressed, watched: Watched) -> Progressed:
    """Train from `start` to the last step, saving, logging and evaluating on the way; of several processes, rank 0
    alone does these.

    Raises:
        Stopped: after SIGTERM to any process, once a checkpoint is written.
        UserError: when the loss stays non-finite, the disk is full, or a loading process was killed.
    """
    recipe, total, writes = prepared.recipe, prepared.total, rank() == 0
    workers = default_workers() if recipe.workers is None else recipe.workers
    share_cores(workers)
    stream = batches(prepared.batches, start.step, total, workers)
    clock, meter, now, saved = Clock(start.seconds), Meter(), start, time.monotonic()
    align(prepared.objective)
    lines = together(lambda: journal(run, start.step, total))
    remedy = f"fewer need less; go on with: onestage pretrain --resume {run} --workers {workers // 2}"
    with StopFlag() as stop, none_lost(remedy), closing(stream), lines:
        for step in range(start.step, total):
            with clock.waiting():
                batch = on_device(next(stream), prepared.device)
            torch.manual_seed(step_seed(recipe.seed, step))
            rates = prepared.optimisers.set_lr(recipe.schedule, step, total)
            stepped = prepared.step(batch, step, total)
            meter.add(scalars(stepped))
            texts = now.texts + (0 if batch.words is None else prepared.batches.captioned)
            now = now._replace(step=step + 1, texts=texts, seconds=clock.seconds())
            last, stopping = now.step == total, agreed(stop.asked)
            due = watched.anything and (now.step % recipe.watch.every == 0 or last)
            measured = {key: value for measure in watched.by_all if due for key, value in measure(prepared).items()}
            with telling():
                if last or due or clock.due(LOG_SECONDS):
                    line = meter.read() | clock.read(now.step - start.step, recipe.batch)
                    lines.line(now.step, now.seconds, line, learning_rates(rates) | {"texts": texts})
                if due and writes:
                    found = (evaluate(prepared) for evaluate in watched.by_one)
                    results = {key: value for one in found for key, value in one.items()} | measured
                    lines.results(now.step, now.seconds, results)
                    now = better(now, results)
                best = due and writes and now.best_step == now.step
                if writes and (last or best or stopping or time.monotonic() - saved >= 60 * recipe.saving.minutes):
                    write_checkpoint(prepared, run, now)
                    saved = time.monotonic()
            if stopping and not last:
                together(lambda: None)  # nobody leaves before it is saved
                said = f"stopped at step {now.step} of {total}; go on with: onestage pretrain --resume {run}"
                raise Stopped(said if writes else "")
    together(lambda: None)  # nobody goes on before all of it is written
    return now


def scalars(stepped: Stepped) -> dict[str, Tensor]:
    """What a step adds to the meter, still on the device."""
    terms = {f"loss/{name}": loss for name, loss in stepped.losses.terms.items()}
    return {"loss": stepped.losses.total, **terms, "norm": stepped.norm, **stepped.losses.watched}


def learning_rates(rates: dict[str, float]) -> dict[str, float]:
    """The learning rate of each group; plainly `lr` where there is one group."""
    if len(rates) == 1:
        return {"lr": next(iter(rates.values()))}
    return {f"lr/{name}": rate for name, rate in rates.items()}


def write_checkpoint(prepared: Prepared, run: Path, now: Progressed) -> None:
    """Everything needed to go on bit by bit: weights, averages, buffers, the optimiser and the place in the stream."""
    tensors = {"model": prepared.objective.state_dict(), "optimiser": prepared.optimisers.state()}
    meta = now._asdict() | {"data": prepared.source.fingerprint(), "total": prepared.total}
    protect = [] if now.best_step is None else [now.best_step]
    save(run / "checkpoints", now.step, tensors, meta, prepared.recipe.saving.keep, protect)


def better(now: Progressed, results: dict[str, float]) -> Progressed:
    """The first result, where it beats the best so far; of a loss, the less the better."""
    name, value = next(iter(results.items()))
    value = -value if "loss" in name else value
    if now.best is None or value > now.best:
        return now._replace(best=value, best_step=now.step)
    return now


def step_seed(seed: int, step: int) -> int:
    """Seeds what torch draws inside a step (drop path) on this rank, so that no generator's state has to be saved."""
    return (seed * 1_000_003 + rank() * 7_368_787 + step) & 0x7FFFFFFF


@final
class StopFlag:
    """Set by SIGTERM inside a `with` block; read between steps. Afterwards SIGTERM does what it did before."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._set)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _set(self, number: int, frame: object) -> None:
        self.asked = True


@final
class Clock:
    """Seconds of a run over all its parts, images a second, and the share of time spent waiting for data."""

    def __init__(self, before: float) -> None:
        self._began = self._marked = time.monotonic()
        self._before, self._waited, self._steps = before, 0.0, 0

    def seconds(self) -> float:
        """Seconds trained, with those before a resume."""
        return self._before + time.monotonic() - self._began

    def due(self, every: float) -> bool:
        """Whether so many seconds have passed since the last reading."""
        return time.monotonic() - self._marked >= every

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what happens inside as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def read(self, steps: int, batch: int) -> dict[str, float]:
        """Rate and share since the last reading; `steps` are those done since the start."""
        passed = max(time.monotonic() - self._marked, 1e-9)
        result = {"img/s": (steps - self._steps) * batch / passed, "wait": self._waited / passed}
        self._marked, self._waited, self._steps = time.monotonic(), 0.0, steps
        return result
