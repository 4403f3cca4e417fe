"""The bench of the loader measures what it says: pictures, rates, ratios and fidelity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onestage.api import ls
from onestage.bench import CASES, bench, loader, pictures
from onestage.bench.timing import in_turn, rate_of, ratio, summary
from onestage.cli import command
from onestage.data import open_source
from onestage.spec import UserError, fields_of
from typed import Capture, draw


def test_rates_leave_the_start_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0, 20.0, 23.0])
    monkeypatch.setattr("onestage.bench.timing.time.perf_counter", lambda: next(clock))
    assert rate_of(iter([99, 8, 8, 4])) == 5.0
    assert rate_of(iter([99, 98, 8, 4]), 2) == 4.0


def test_rounds_let_everything_run_in_turn() -> None:
    ran: list[str] = []
    found = in_turn({name: lambda name=name: float(ran.append(name) or len(ran)) for name in "abc"}, 3)
    assert "".join(ran) == "abcbcacab"
    assert found == {"a": [1.0, 6.0, 8.0], "b": [2.0, 4.0, 9.0], "c": [3.0, 5.0, 7.0]}


def test_medians_and_quartiles() -> None:
    assert summary([4.0]) == (4.0, 4.0, 4.0)
    assert summary([1.0, 9.0, 5.0, 3.0, 7.0]) == (5.0, 3.0, 7.0)
    assert ratio([2.0, 6.0, 20.0], [1.0, 2.0, 4.0]) == (3.0, 2.5, 4.0)


def test_pictures_are_made_in_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURES", 16)
    files = pictures.prepare(None, tmp_path)
    folder, shards = open_source(f"{tmp_path}/images"), open_source(f"{tmp_path}/shards/*.tar")
    assert len(files) == len(folder) == len(shards) == 16
    assert all(folder[index].picture.size == (500, 375) for index in range(16))
    assert {shards[index].picture.encoded() for index in range(16)} == set(files)
    assert 30_000 < np.mean([len(content) for content in files]) < 120_000


def test_lines_for_every_contestant(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    pytest.importorskip("webdataset", reason="the extra `bench` is not installed")
    monkeypatch.setattr(pictures, "PICTURES", 16)
    monkeypatch.setattr(loader, "WORKERS", (0,))
    monkeypatch.setattr(loader, "BATCH", 4)
    assert command(["bench", "loader", "--images", "8", "--rounds", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["case"] == "loader" for line in lines)
    assert lines[1]["psnr_db"]["least"] > 40
    assert [line["contestant"] for line in lines[2:]] == [
        *("onestage, folder", "onestage, shards", "ImageFolder", "WebDataset", "limit"),
    ]
    for line in lines[2:]:
        rate = line["img/s"]
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert "of ImageFolder" in lines[2] and "of limit" in lines[4]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'loader'"):
        bench("loadr")
    with pytest.raises(UserError, match=r"rounds: .*greater than or equal to 1"):
        bench("loader", {"rounds": "0"})
    with pytest.raises(UserError, match="did you mean 'images'"):
        bench("loader", {"image": 3})
    draw(tmp_path / "a.png", 0)
    with pytest.raises(UserError, match="holds 0 JPEGs"):
        list(bench("loader", {"data": str(tmp_path)}))


def test_every_case_says_what_it_measures_and_with_what_options() -> None:
    told = ls("benches")
    for name, case in CASES.items():
        assert f"{name}: {(case.__doc__ or '').strip().splitlines()[0]}" in told
        for field in fields_of(case):
            assert field.about, f"bench {name}: --{field.name} has no docstring"
            assert f"--{field.name}" in told
