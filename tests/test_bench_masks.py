"""The bench of masks: a figure that opens, and numbers with the biases that figure 3 of UTA shows."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from onestage.bench import bench
from onestage.cli import command
from onestage.spec import UserError
from typed import Capture


def test_blocks_prefer_the_centre_and_reversal_takes_most_of_it_away(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "masks.svg"
    assert command(["bench", "masks", "--out", str(file), "--draws", "1000"]) == 0
    lines = {line["kind"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(lines) == ["random", "block", "block_reversed"]
    for line in lines.values():
        assert np.shape(line["probability"]) == (16, 16)
        assert np.mean(line["probability"]) == pytest.approx(0.5, abs=1e-4)
    bias = {kind: line["centre"] - line["corners"] for kind, line in lines.items()}
    assert abs(bias["random"]) < 0.06
    assert bias["block"] > 0.3
    assert abs(bias["block_reversed"]) < bias["block"] / 3
    assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_the_figure_is_a_picture_with_the_mask_ratio_and_grid_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "masks.png"
    lines = list(bench("masks", {"out": str(file), "draws": "20", "ratio": "0.25", "side": "8"}))
    assert [np.mean(line["probability"]) for line in lines] == pytest.approx([0.25] * 3, abs=1e-4)
    assert len(lines[0]["probability"]) == 8
    with Image.open(file) as picture:
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 10


@pytest.mark.parametrize(
    ("name", "words"),
    [("masks.pdf", "ends in .svg or .png"), ("there.svg", "exists already"), ("no/masks.svg", "no folder")],
)
def test_a_figure_that_cannot_be_written_is_said_first(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there.svg").touch()
    with pytest.raises(UserError, match=words):
        next(bench("masks", {"out": str(tmp_path / name)}))
