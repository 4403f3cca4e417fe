"""What changes over a run: learning rates, and values such as an EMA's momentum. Pure functions of the step.

Learning rate (BEiT and EVA): a linear warm-up that reaches the peak on its last step, then a cosine over the
*remaining* steps. With W warm-up steps of T,

    lr(s) = start + (peak - start) s / (W - 1)                          for s < W
    lr(s) = end + (peak - end) (1 + cos(pi (s - W) / (T - W))) / 2      for W <= s <= T

SimMIM (arXiv:2111.09886) stays at the peak instead, and multiplies it by a factor at given shares of the run.

Momentum (BYOL, arXiv:2006.07733; DINO, arXiv:2104.14294): m(s) = end + (start - end) (1 + cos(pi s / T)) / 2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, assert_never

from pydantic import Discriminator, Field, Tag

from onestage.spec import spec


@spec
class Cosine:
    """Linear warm-up from `start` to the peak, then a cosine down to `end`.

    `start` and `end` are absolute learning rates at the optimiser's reference batch, as papers print them;
    `scaled` takes them to another batch together with the peak.
    """

    warmup: Annotated[float, Field(ge=0, le=1)]
    """Share of the run's steps: 40 of 1600 epochs are 0.025, whatever the number of steps becomes."""
    start: Annotated[float, Field(ge=0)] = 0.0
    end: Annotated[float, Field(ge=0)] = 0.0
    over: Annotated[float, Field(ge=1)] = 1.0
    """How many lengths of the run the cosine takes: one of 1.25 does not reach its end (MSN)."""
    kind: Literal["cosine"] = "cosine"

    def scaled(self, factor: float) -> Cosine:
        """The same shape with `start` and `end` multiplied."""
        return dataclasses.replace(self, start=self.start * factor, end=self.end * factor)

    def length(self, total: int) -> int:
        """Over how many steps values run that run over a run of `total`."""
        return round(self.over * total)

    def warmup_steps(self, total: int) -> int:
        """How many of `total` steps warm up."""
        return round(self.warmup * total)

    def at(self, step: int, total: int, peak: float) -> float:
        """The learning rate with which step number `step` (from 0) of `total` is taken."""
        return warm_cosine(step, self.length(total), self.warmup_steps(total), peak, self.start, self.end)


@spec
class Multistep:
    """Linear warm-up from `start` to the peak, which is then multiplied by `factor` at every share in `drops`."""

    warmup: Annotated[float, Field(ge=0, le=1)]
    """Share of the run's steps."""
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """Shares of the run: 700 of 800 epochs are 0.875."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    start: Annotated[float, Field(ge=0)] = 0.0
    kind: Literal["multistep"] = "multistep"

    def scaled(self, factor: float) -> Multistep:
        """The same shape with `start` multiplied."""
        return Multistep(warmup=self.warmup, drops=self.drops, factor=self.factor, start=self.start * factor)

    def length(self, total: int) -> int:
        """Over how many steps values run that run over a run of `total`."""
        return total

    def warmup_steps(self, total: int) -> int:
        """How many of `total` steps warm up."""
        return round(self.warmup * total)

    def at(self, step: int, total: int, peak: float) -> float:
        """The learning rate with which step number `step` (from 0) of `total` is taken."""
        warm = self.warmup_steps(total)
        if step < warm:
            return warm_cosine(step, total, warm, peak, self.start, peak)
        return peak * self.factor ** sum(step >= round(drop * total) for drop in self.drops)


def _kind_of(value: Any) -> str:
    """Recipes written before there was a choice say nothing and mean a cosine."""
    return str(value.get("kind", "cosine")) if isinstance(value, dict) else str(value.kind)


Rates = Annotated[Annotated[Cosine, Tag("cosine")] | Annotated[Multistep, Tag("multistep")], Discriminator(_kind_of)]
"""How learning rates may run over a recipe."""


@spec
class Constant:
    """The same value at every step."""

    value: float
    kind: Literal["constant"] = "constant"


@spec
class CosineTo:
    """From `start` at step 0 to `end` at the last step, along half a cosine."""

    start: float
    end: float = 1.0
    kind: Literal["cosine"] = "cosine"


Schedule = Annotated[Constant | CosineTo, Field(discriminator="kind")]


def warm_cosine(step: int, total: int, warmup_steps: int, peak: float, start: float, end: float) -> float:
    """lr(s) of the module's docstring. It stays at `end` after `total`; a lone warm-up step is at `start`."""
    if step < warmup_steps:
        return start + (peak - start) * step / max(warmup_steps - 1, 1)
    return half_cosine(step - warmup_steps, total - warmup_steps, peak, end)


def value_at(schedule: Constant | CosineTo, step: int, total: int) -> float:
    """The scheduled value at step number `step` (from 0) of `total`."""
    match schedule:
        case Constant():
            return schedule.value
        case CosineTo():
            return half_cosine(step, total, schedule.start, schedule.end)
        case _:
            assert_never(schedule)


def half_cosine(step: int, total: int, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at step `total` and after it, along half a cosine."""
    if step >= total:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * step / total)) / 2
