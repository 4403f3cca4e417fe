"""Rates that are compared fairly: everything in turn, several rounds, medians with the middle half of the rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple


class Rate(NamedTuple):
    """Median over rounds, and the first and third quartile."""

    median: float
    low: float
    high: float


def rate_of(batches: Iterator[int], start: int = 1) -> float:
    """Items a second of an iterator that tells how many each step brought. The first `start` steps are not counted:
    processes begin then, and take memory for the first time."""
    for _ in range(start):
        next(batches)
    began, items = time.perf_counter(), 0
    for count in batches:
        items += count
    return items / (time.perf_counter() - began)


def in_turn(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contestant's rates, one a round; a round lets all of them run once, each time beginning with another."""
    names, found = list(contestants), {name: [] for name in contestants}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            found[name].append(contestants[name]())
    return found


def summary(rates: list[float]) -> Rate:
    """Median and quartiles."""
    if len(rates) == 1:
        return Rate(rates[0], rates[0], rates[0])
    low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
    return Rate(middle, low, high)


def ratio(ours: list[float], theirs: list[float]) -> Rate:
    """Ours over theirs, round by round, so that what else the machine does takes from both."""
    return summary([one / other for one, other in zip(ours, theirs, strict=True)])
