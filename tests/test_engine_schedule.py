"""Learning-rate and momentum schedules against hand formulas and arrays written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import TypeAdapter

from onestage.engine.schedule import Constant, Cosine, CosineTo, Multistep, Rates, Schedule, value_at, warm_cosine
from onestage.spec import UserError, from_plain


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (1, 9), (2, 10), (10, 100), (40, 41)])
def test_learning_rate_is_a_ramp_then_half_a_cosine_over_what_remains(warmup: int, total: int) -> None:
    peak, start, end = 1.5e-3, 1e-6, 1e-5
    ramp = np.linspace(start, peak, warmup)
    rest = [end + 0.5 * (peak - end) * (1 + math.cos(math.pi * i / (total - warmup))) for i in range(total - warmup)]
    expected = np.concatenate([ramp, rest])
    got = [warm_cosine(step, total, warmup, peak, start, end) for step in range(total)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_joints() -> None:
    schedule = Cosine(warmup=0.1, start=1e-6, end=1e-5)
    assert schedule.warmup_steps(1000) == 100
    assert schedule.at(0, 1000, 2e-3) == 1e-6
    assert schedule.at(99, 1000, 2e-3) == 2e-3
    assert schedule.at(100, 1000, 2e-3) == 2e-3
    assert schedule.at(550, 1000, 2e-3) == pytest.approx((2e-3 + 1e-5) / 2, rel=1e-12)
    assert schedule.at(1000, 1000, 2e-3) == 1e-5
    assert schedule.at(5000, 1000, 2e-3) == 1e-5


def test_a_run_that_is_all_warm_up_ends_at_the_peak() -> None:
    schedule = Cosine(warmup=1.0)
    assert [schedule.at(step, 3, 1.0) for step in range(3)] == [0.0, 0.5, 1.0]


def test_start_and_end_scale_with_the_peak() -> None:
    schedule = Cosine(warmup=0.2, start=1e-6, end=1e-5)
    for step in range(50):
        whole = schedule.at(step, 50, 1.6e-3)
        assert schedule.scaled(1 / 16).at(step, 50, 1e-4) == pytest.approx(whole / 16, rel=1e-12)


def test_momentum() -> None:
    assert value_at(Constant(value=0.9998), 3, 10) == 0.9998
    schedule = CosineTo(start=0.996)
    assert value_at(schedule, 0, 200) == pytest.approx(0.996, abs=1e-15)
    assert value_at(schedule, 100, 200) == pytest.approx(0.998, abs=1e-15)
    assert value_at(schedule, 200, 200) == 1.0
    expected = 1 - (1 - 0.996) * (math.cos(math.pi * 30 / 200) + 1) / 2
    assert value_at(schedule, 30, 200) == pytest.approx(expected, abs=1e-15)


def test_schedules_are_told_apart_by_kind_and_checked() -> None:
    read = TypeAdapter(Schedule).validate_python
    assert read({"kind": "constant", "value": 0.99}) == Constant(value=0.99)
    assert read({"kind": "cosine", "start": 0.99}) == CosineTo(start=0.99, end=1.0)
    with pytest.raises(UserError, match="warmup"):
        from_plain(Cosine, {"warmup": 40})


def test_steps_down_after_a_ramp() -> None:
    """SimMIM's: 10 of 800 epochs of warm-up, a tenth from epoch 700 on."""
    schedule = Multistep(warmup=10 / 800, drops=(700 / 800,), start=2e-6)
    expected = [2e-6 + (4e-4 - 2e-6) * i / 9 for i in range(10)] + [4e-4] * 690 + [4e-5] * 100
    np.testing.assert_allclose([schedule.at(step, 800, 4e-4) for step in range(800)], expected, rtol=1e-12)
    for step in (3, 300, 750):
        assert schedule.scaled(0.5).at(step, 800, 2e-4) == pytest.approx(expected[step] / 2)
    twice = Multistep(warmup=0.0, drops=(0.5, 0.75), factor=0.5)
    assert [twice.at(step, 4, 1.0) for step in range(4)] == [1.0, 1.0, 0.5, 0.25]


def test_a_schedule_without_a_kind_is_a_cosine() -> None:
    read = TypeAdapter(Rates).validate_python
    assert read({"warmup": 0.1}) == Cosine(warmup=0.1)
    assert read({"kind": "multistep", "warmup": 0.1, "drops": [0.5]}) == Multistep(warmup=0.1, drops=(0.5,))
