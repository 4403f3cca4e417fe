"""What a run will cost: the formulas by hand, and the verb on a small run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import onestage
from onestage.bench.costs import Costs
from onestage.bench.plan import GPUS, Load, break_even, modelled, seconds_of, told, ways
from onestage.bench.planned import load_of
from onestage.pretraining import prepare
from onestage.spec import UserError
from onestage.teachers.serving.codec import record_bytes
from small import BATCH, small
from stepping import brief_teacher

COSTS = Costs(data=0.002, teacher=0.08, student=0.01, rest=0.001, keep=0.004, read=0.0005)
LOAD = Load(
    pictures=1000,
    images=90_000,
    workers=0,
    answer={"int8": 264_000, "fp16": 526_000},
    teacher_gflop=534.1,
    student_gflop=83.1,
    memory=1e9,
    parameters=86_000_000,
    batch=64,
)


def test_seconds_by_hand() -> None:
    assert seconds_of(COSTS, 0, 1, kept=False) == pytest.approx(0.002 + 0.08 + 0.01 + 0.001)
    assert seconds_of(COSTS, 0, 4, kept=True) == pytest.approx(0.002 + 0.084 / 4 + 0.0005 + 0.01 + 0.001)
    assert seconds_of(COSTS, 0, 0, kept=True) == pytest.approx(0.002 + 0.0005 + 0.01 + 0.001)
    assert seconds_of(COSTS, 4, 1, kept=False) == pytest.approx(0.091), "loading is hidden"
    assert seconds_of(COSTS._replace(data=1.0), 4, 1, kept=False) == pytest.approx(0.25), "loading is what lasts"


def test_ways_by_hand() -> None:
    found = {way.name: way for way in ways(COSTS, LOAD, 2)}
    assert list(found) == ["live", "replay(2)", "replay(4)", "replay(8)", "store(1)", "store(4)", "store(10)"]
    live, store = found["live"], found["store(10)"]
    assert live.hours == pytest.approx(0.093 * 90_000 / 2 / 3600)
    assert live.share == pytest.approx(0.08 / 0.093)
    assert store.disk == 1000 * 10 * 264_000
    assert found["replay(8)"].disk == 1000 * 264_000
    assert store.before == pytest.approx(1000 * (10 * 0.084 + 0.002) / 2 / 3600)
    even = break_even(store, live, LOAD, 2)
    assert even is not None
    assert even == pytest.approx(0.842 / (0.093 - 0.0135), rel=1e-6)
    spent = store.before + even * 1000 * store.seconds / 2 / 3600
    assert spent == pytest.approx(even * 1000 * live.seconds / 2 / 3600)
    slow = COSTS._replace(read=1.0)
    assert break_even(ways(slow, LOAD, 1)[-1], ways(slow, LOAD, 1)[0], LOAD, 1) is None
    assert len(ways(COSTS, LOAD._replace(answer={"int8": 0, "fp16": 0}), 1)) == 1, "no teacher, nothing to keep"


def test_an_h200_reaches_what_the_roofline_says() -> None:
    """UTA-B/14 with the g/14 teacher: about 1,050 img/s live, 6,900 cached, the teacher 87 % of a step."""
    found = {way.name: way for way in ways(modelled(LOAD, GPUS["h200"]), LOAD, 1)}
    assert 1 / found["live"].seconds == pytest.approx(1050, rel=0.1)
    assert 1 / found["store(1)"].seconds == pytest.approx(6857, rel=0.1)
    assert found["live"].share == pytest.approx(0.87, abs=0.02)


def test_the_size_of_a_run(tmp_path: Path) -> None:
    prepared = prepare(small("uta", teachers={"teacher": brief_teacher(tmp_path)}), None)
    load = load_of(prepared, 0)
    assert load.images == 12 * BATCH
    assert load.answer == {kind: record_bytes(kind, 17, 16) for kind in ("int8", "fp16")}
    with FlopCounterMode(display=False) as counter:
        prepared.teachers["teacher"].tokens(torch.zeros(3, 3, 32, 32), "joint")
    assert load.teacher_gflop == pytest.approx(counter.get_total_flops() / 3 / 1e9)
    trained = sum(one.numel() for one in prepared.objective.parameters())
    assert load.parameters == trained
    assert load.memory > 16 * trained


@pytest.mark.parametrize("row", ["uta", "mae", "uta_text"])
def test_the_verb(row: str, tmp_path: Path) -> None:
    teachers = {} if row == "mae" else {"teacher": brief_teacher(tmp_path)}
    asked = small(row, teachers=teachers, data="scenes" if row == "uta_text" else "digits")
    here = onestage.plan(asked)
    assert "(measured)" in here
    assert ("replay(4)" in here) == (row == "uta"), "words are answered live"
    assert "8 x h200 (modelled" in onestage.plan(asked, gpus=8, gpu="H200")
    with pytest.raises(UserError, match=r"--gpu h20: not known; did you mean 'h200'\?"):
        onestage.plan(asked, gpu="h20")


def test_a_step_that_does_not_fit_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = small("mae")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.__getitem__)
    with pytest.raises(
        UserError, match=r"this machine has 4.1e-05, so it cannot be measured here.*--accumulate \d+ .*--gpu h200"
    ):
        onestage.plan(asked)
    assert "modelled" in onestage.plan(asked, gpu="h200")


def test_words_for_hours() -> None:
    text = told(COSTS, LOAD, 1, "here")
    assert "2.33 h" in text
    assert "263,000" not in text
    assert "264,000 bytes as int8" in text
