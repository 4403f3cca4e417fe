"""`onestage bench teacher` measures what it says."""

from __future__ import annotations

import json

import pytest

from onestage.bench import bench


def test_live_against_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lines = list(bench("teacher", {"images": 64, "rounds": 1, "ratio": 4.0, "epochs": 2}))
    assert json.loads(json.dumps(lines)) == lines
    costs, fill, live, replay, compared = lines
    ratio = costs["teacher_ms"] / costs["student_ms"]
    assert costs["ratio"] == pytest.approx(ratio, rel=0.05)
    assert costs["bound"] == pytest.approx((ratio + 1) / (ratio / 2 + 1), rel=0.05)
    assert [line.get("mode") for line in (fill, live, replay)] == ["replay", "live", "replay"]
    assert min(line["img_s"] for line in (fill, live, replay)) > 0
    assert all(0.2 < line["planned_over_measured"] < 5 for line in (live, replay)), "one round on a busy machine"
    assert compared["times"] == pytest.approx(replay["img_s"] / live["img_s"], rel=0.05)
