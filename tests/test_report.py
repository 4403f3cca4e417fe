"""The report: its numbers, one file without addresses, escaped text, and runs that lack this or that."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from PIL import Image

from onestage.methods import METHODS
from onestage.report import Pictures, coverage_maps, page, write_report
from onestage.report.directory import read_runs
from onestage.report.figures import POINTS, curves, overlay, png, thin
from onestage.report.tables import warnings
from onestage.spec import UserError, to_plain, to_yaml

HOSTILE = "<script>alert(1)</script> & $\\frac{ _x"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure of coverage is drawn, but not from thousands of masks."""
    monkeypatch.setattr(page, "DRAWS", 20)


def recipe(method: str = "uta", **settings: Any) -> dict[str, Any]:
    models = {"student": {"arch": "vit", "size": 64, "patch": 8}}
    plain = {"name": f"{method}_tiny", "method": to_plain(METHODS[method]), "models": models, "data": "scenes"}
    return plain | {"steps": 1000, "batch": 64} | settings


def measured(count: int = 100, term: str = "align") -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        loss = 2.0 - number / count
        line = {"step": number * 10, "seconds": number * 7.5, "loss": loss, f"loss/{term}": loss, "lr": 1e-3}
        lines.append(line | {"img/s": 812.4, "wait": 0.1, "texts": 0})
    return [*lines, {"step": count * 10, "seconds": count * 7.5, "zero-shot": 0.7312}]


def write_run(folder: Path, plain: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(to_yaml(plain))
    if records:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def evaluated(folder: Path, name: str, **found: Any) -> None:
    (folder / "evaluations").mkdir(exist_ok=True)
    (folder / "evaluations" / f"{name}.json").write_text(json.dumps(found))


def pictures(text: str) -> Pictures:
    draw = np.random.default_rng(0)
    return Pictures(
        images=[draw.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(2)],
        truths=[text, "a dog"],
        captions=[[text, "a cat"], ["a cat", "a bird"]],
        words=[text, "dog"],
        heat_maps=[draw.normal(size=(4, 4)), np.zeros((4, 4))],
    )


@final
class Page(HTMLParser):
    """The tags of a page, in order, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def full_run(folder: Path) -> Path:
    run = write_run(folder, recipe(), measured())
    (run / "env.json").write_text(json.dumps({"command": ["onestage", "pretrain"], "packages": {"torch": "2.11.0"}}))
    (run / "quarantine.jsonl").write_text("{}\n" * 17)
    metrics = {"text_to_image_r1": 0.4321, "chance_text_to_image_r1": 0.01, "captions": 5.0}
    evaluated(run, "retrieval", task="retrieval", model="runs/a", data="scenes:test", metrics=metrics, samples=543)
    return run


def test_a_run_in_numbers(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    assert write_report([full_run(tmp_path / "student")], out, pictures("a red seven")) == out
    text = out.read_text(encoding="utf-8")
    for told in ("student", "uta_tiny", "1,000", "12 min 30 s", "812", "1.0000", "0.7312", "0.4321", "543", "2.11.0"):
        assert told in text, told
    for told in ("view1 drop block reversed", "teacher, kept+cls", "Gaussian (cosine)"):
        assert told in text, told
    assert "17 damaged samples" in text and "chance_text" not in text
    assert "on 8 x 8 cells" in text and "hides 40% of the cells" in text
    assert text.count("<svg") == 4 and text.count('<img src="data:image/png;base64,') == 4
    page = Page(text)
    assert page.open == [] and page.tags.count("ol") == 2
    assert len(text) < 1_000_000


def test_one_file_without_addresses_or_scripts(tmp_path: Path) -> None:
    run = full_run(tmp_path / "student")
    text = write_report([run], tmp_path / "r.html", pictures(HOSTILE)).read_text(encoding="utf-8")
    told = re.sub(r"data:image/png;base64,[\w+/=\s]*", "", text)
    assert len(told) < len(text)
    assert re.findall(r"https?:|//[a-z]|<link|@import|url\((?!#)", told) == []
    assert re.findall(r'\b(?:src|href)="(?!"|#)[^"]*"', told) == [], "only pictures within, and parts of figures"
    assert "script" not in Page(text).tags
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; $\\frac{ _x") >= 5


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    run = full_run(tmp_path / "student")
    first = write_report([run], tmp_path / "1.html", pictures("a")).read_bytes()
    assert write_report([run], tmp_path / "2.html", pictures("a")).read_bytes() == first


def test_several_runs_share_axes_and_show_what_differs(tmp_path: Path) -> None:
    one = write_run(tmp_path / "_a$\\frac" / "same", recipe(batch=64), measured())
    two = write_run(tmp_path / "b" / "same", recipe("mae", batch=96), measured(term="pixels"))
    text = write_report([one, two], tmp_path / "r.html", None).read_text(encoding="utf-8")
    assert text.count(f">{one}</text>") == 3, "a legend in each of the three figures of curves"
    assert "Settings that differ" in text and "<td>batch</td><td>64</td><td>96</td>" in text
    assert "<td>data</td>" not in text, "equal settings are left out"
    assert text.count("How often each cell is hidden") == 2 and "Pictures" not in text
    alone = write_report([one], tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "Settings that differ" not in alone and "</text>" in alone


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_has_its_rows(method: str, tmp_path: Path) -> None:
    text = write_report([write_run(tmp_path / "run", recipe(method))], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "nothing was measured yet" in text
    for term in METHODS[method].terms:
        assert f"<td>{re.sub(r'^local[0-9]+', 'local', term)}</td>" in text  # small crops have one row
    hides = any(part.hide for asked in METHODS[method].inputs.values() for part in asked.parts.values())
    assert ("How often each cell is hidden" in text) == hides


def warned(folder: Path, records: Sequence[Mapping[str, Any]], **settings: Any) -> list[str]:
    return warnings(read_runs([write_run(folder, recipe(**settings), records)]))


def test_warnings(tmp_path: Path) -> None:
    good = measured()
    assert warned(tmp_path / "0" / "run", good) == []
    assert warned(tmp_path / "1" / "run", good, steps=5000) == [
        "run: stopped at step 1,000 of 5,000; go on with onestage pretrain --resume"
    ]
    bad = [line | {"loss": None} if line["step"] < 40 else line for line in good[:-1]]
    assert warned(tmp_path / "2" / "run", bad) == ["run: the loss was not finite in 3 of 100 records"]
    flat = [line | {"loss": 1.0} for line in good[:-1]]
    assert warned(tmp_path / "3" / "run", flat) == [
        "run: the loss did not fall: its last tenth is no lower than its first"
    ]
    slow = [line | {"wait": 0.62} for line in good[:-1]]
    assert warned(tmp_path / "4" / "run", slow)[0].startswith("run: 62% of the time went into waiting")
    worse = [{"step": 500, "seconds": 1.0, "zero-shot": 0.8}, *good[50:]]
    assert warned(tmp_path / "5" / "run", worse) == [
        "run: zero-shot ended at 0.731, below its best of 0.800 at step 500"
    ]


def test_quantities_that_were_never_finite_are_left_out(tmp_path: Path) -> None:
    records = [{"step": step, "seconds": 1.0, "loss": None, "loss/align": None, "lr": 0.1} for step in (1, 2)]
    text = write_report([write_run(tmp_path / "run", recipe(), records)], tmp_path / "r.html").read_text()
    assert "Loss of each term" not in text and "Learning rate" in text


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        write_report([tmp_path], tmp_path / "r.html")
    run = full_run(tmp_path / "run")
    (run / "evaluations" / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json.*JSON"):
        write_report([run], tmp_path / "r.html")
    (run / "evaluations" / "broken.json").write_text(" " * (1 << 21))
    with pytest.raises(UserError, match="too large"):
        write_report([run], tmp_path / "r.html")
    (run / "evaluations" / "broken.json").unlink()
    with pytest.raises(UserError, match="cannot be written"):
        write_report([run], run / "run.yaml" / "r.html")


def test_curves_keep_their_ends() -> None:
    points = [(float(step), float(step % 7)) for step in range(1234)]
    kept = thin(points)
    assert len(kept) == POINTS and kept[0] == points[0] and kept[-1] == points[-1]
    assert list(kept) == sorted(set(kept)) and set(kept) <= set(points)
    assert thin(points[:3]) == points[:3]
    assert "</svg>" in curves({"loss": {"one": points[:1]}})


def test_pictures_survive_the_way_to_the_page() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png(pixels, side=160).split(",")[1]))))
    assert shown.shape == (160, 160, 3) and (shown[::4, ::4] == pixels).all() and (shown[3::4, 3::4] == pixels).all()


def test_heat_is_brightest_where_it_is_greatest() -> None:
    heat = np.zeros((4, 4))
    heat[1, 2] = 1.0
    shown = overlay(np.full((32, 32, 3), 128, dtype=np.uint8), heat).astype(int).sum(axis=-1)
    top, left = np.unravel_index(shown.argmax(), shown.shape)
    assert (top // 8, left // 8) == (1, 2)
    assert np.ptp(overlay(np.full((8, 8, 3), 128, dtype=np.uint8), np.ones((2, 2)))) >= 0, "a constant map is drawn"


def test_coverage_maps_share_a_scale() -> None:
    svg = coverage_maps({"low": np.full((2, 2), 0.25), "high": np.array([[0.1, 0.8], [0.1, 0.1]])})
    assert "0.25 to 0.25" in svg and "0.10 to 0.80" in svg and svg.count("<image") >= 2
