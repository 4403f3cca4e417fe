"""The file of JSON lines through crashes and resumes, and the meter against plain means."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch

from onestage.engine.metrics import Meter, Metrics, read_metrics
from onestage.spec import UserError


def fill(path: Path, steps: range) -> None:
    with Metrics(path) as metrics:
        for step in steps:
            metrics.write({"step": step, "seconds": step / 2, "loss": {"align": 1 / step}})


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)]


def test_records_come_back_and_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        metrics.write({"step": 10, "loss": {"align": 0.25}, "note": "é\n"})
        assert read_metrics(path) == [{"step": 10, "loss": {"align": 0.25}, "note": "é\n"}]
        metrics.write({"step": 20})
    assert steps(path) == [10, 20]
    assert len(path.read_text().splitlines()) == 2


def test_resuming_drops_the_steps_that_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, range(1, 8))
    with Metrics(path, step=5) as metrics:
        assert steps(path) == [1, 2, 3, 4, 5]
        metrics.write({"step": 6, "again": True})
    assert steps(path) == [1, 2, 3, 4, 5, 6]
    assert read_metrics(path)[-1] == {"step": 6, "again": True}
    assert read_metrics(path)[2] == {"step": 3, "seconds": 1.5, "loss": {"align": 1 / 3}}
    with Metrics(path, step=100):
        assert steps(path) == [1, 2, 3, 4, 5, 6]
    with Metrics(path):
        assert steps(path) == []
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, range(1, 4))
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        assert steps(path) == [1, 2], cut
    path.write_bytes(whole + b"\x00" * 50)
    assert steps(path) == [1, 2, 3]
    with Metrics(path, step=3) as metrics:
        metrics.write({"step": 4})
    assert steps(path) == [1, 2, 3, 4]


def test_a_number_that_a_crash_cut_short_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 12}')
    assert steps(path) == [1]


@pytest.mark.parametrize("line", ["{", "[1]", '{"steps": 2}', '{"step": "2"}', "", "[" * 100_000])
def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        Metrics(path, step=3)
    assert '{"step": 3}' in path.read_text(), "nothing was lost"


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        metrics.write({"step": 1, "loss": {"align": math.nan}, "norms": [math.inf, 1.0]})
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read_metrics(path) == [{"step": 1, "loss": {"align": None}, "norms": [None, 1.0]}]


def test_a_record_needs_its_step(tmp_path: Path) -> None:
    with Metrics(tmp_path / "metrics.jsonl") as metrics, pytest.raises(ValueError, match="step"):
        metrics.write({"loss": 1.0})


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: cannot be read"):
        read_metrics(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match=r"no/metrics\.jsonl: cannot be written"):
        Metrics(tmp_path / "no" / "metrics.jsonl")
    path = tmp_path / "metrics.jsonl"
    fill(path, range(1, 4))

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left"):
        Metrics(path, step=2)
    assert steps(path) == [1, 2, 3]


def test_the_meter_is_the_mean_since_the_last_reading() -> None:
    meter = Meter()
    assert meter.read() == {}
    for value in (1.0, 2.0, 6.0):
        meter.add({"align": torch.tensor(value, requires_grad=True), "pixels": torch.tensor(-value).bfloat16()})
    assert meter.read() == {"align": 3.0, "pixels": -3.0}
    assert meter.read() == {}
    meter.add({"align": torch.tensor(5.0), "pixels": torch.tensor(1.0)})
    assert meter.read() == {"align": 5.0, "pixels": 1.0}


def test_the_meter_leaves_out_what_is_not_finite() -> None:
    meter = Meter()
    for one, two in ((1.0, math.nan), (math.inf, math.nan), (3.0, math.nan)):
        meter.add({"one": torch.tensor(one), "two": torch.tensor(two)})
    read = meter.read()
    assert read["one"] == 2.0
    assert math.isnan(read["two"])


def test_the_meter_refuses_other_names() -> None:
    meter = Meter()
    meter.add({"align": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="pixels"):
        meter.add({"pixels": torch.tensor(1.0)})
