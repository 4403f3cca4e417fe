"""Data sets as the hub's library saves them, and what is said where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onestage.data import open_source
from onestage.data.hub import open_hub
from onestage.data.keys import Keys
from onestage.data.verify import verify
from onestage.roles import BadSample
from onestage.spec import UserError

datasets = pytest.importorskip("datasets", reason="data sets of the hub need the extra hf")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows(first: int, count: int) -> Any:
    numbers = range(first, first + count)
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["ape", "bee", "cow"]),
            "kind": datasets.Value("string"),
        }
    )
    made = {
        "img": [Image.fromarray(np.full((4, 6, 3), number, np.uint8)) for number in numbers],
        "captions": [[f"picture {number}", f"Bild {number}"] for number in numbers],
        "label": [number % 3 for number in numbers],
        "kind": ["odd" if number % 2 else "even" for number in numbers],
    }
    return datasets.Dataset.from_dict(made, features=features)


def look(source: Any, first: int, count: int) -> None:
    assert len(source) == count and source.classes == ("ape", "bee", "cow")
    assert source.has_texts and source.has_labels and source.keeps_captions == {"crop", "colour"}
    for index in np.random.default_rng(0).permutation(count).tolist():
        sample, number = source[index], first + index
        assert sample.picture.size == (6, 4) and int(sample.picture.decode().mean()) == number
        assert sample.texts == (f"picture {number}", f"Bild {number}") and sample.label == number % 3
        assert sample.key == str(index)


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    both = datasets.DatasetDict(train=rows(0, 9), test=rows(100, 4))
    both.save_to_disk(tmp_path / "both")
    look(open_source(f"hf:{tmp_path}/both"), 0, 9)
    look(open_source(f"hf:{tmp_path}/both/train"), 0, 9)
    look(open_source(f"hf:{tmp_path}/both/test"), 100, 4)
    rows(7, 3).save_to_disk(tmp_path / "one")
    look(open_source(f"hf:{tmp_path}/one"), 7, 3)
    prints = [open_source(f"hf:{tmp_path}/{name}").fingerprint() for name in ("both", "both/train", "both/test", "one")]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    assert verify(open_source(f"hf:{tmp_path}/both"), 2, lambda done, total: None) == []


def test_a_folder_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    rows(0, 9).to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    rows(50, 5).to_parquet(tmp_path / "set" / "data" / "validation-00000-of-00001.parquet")
    look(open_source(f"hf:{tmp_path}/set"), 0, 9)
    monkeypatch.chdir(tmp_path)
    look(open_source("hf:set/validation"), 50, 5)
    plain = open_source("parquet:set/data/validation-*.parquet")
    assert plain.classes == ("ape", "bee", "cow") and plain[1].texts == ("picture 51", "Bild 51")


def test_a_folder_of_files_is_read_where_they_lie(tmp_path: Path) -> None:
    for name, level in (("ape/a.png", 1), ("bee/b.png", 2)):
        (tmp_path / "files" / name).parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(tmp_path / "files" / name)
    source = open_source(f"hf:{tmp_path}/files")
    assert source.classes == ("ape", "bee") and [source[i].label for i in range(2)] == [0, 1]
    assert [int(source[i].picture.decode().mean()) for i in range(2)] == [1, 2]
    (tmp_path / "files" / "bee" / "b.png").unlink()
    with pytest.raises(BadSample, match="cannot be read"):
        source[1].picture.decode()


def test_which_column_holds_what(tmp_path: Path) -> None:
    rows(0, 5).save_to_disk(tmp_path / "one")
    source = open_hub(f"hf:{tmp_path}/one", Keys(text="kind", label="kind"))
    assert source.classes == ("even", "odd") and source[3].texts == ("odd",) and source[3].label == 1
    with pytest.raises(
        UserError, match=r"'fine_label', which was given as label=; there are: captions, img, kind, lab"
    ):
        open_hub(f"hf:{tmp_path}/one", Keys(label="fine_label"))


def test_what_cannot_be_used(tmp_path: Path) -> None:
    def refused(place: str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(f"hf:{tmp_path}/{place}")
        return str(caught.value)

    datasets.DatasetDict(first=rows(0, 2), second=rows(0, 2)).save_to_disk(tmp_path / "both")
    rows(0, 2).save_to_disk(tmp_path / "one")
    (tmp_path / "none").mkdir()
    rows(0, 2).select([]).to_parquet(tmp_path / "none" / "a.parquet")
    rows(0, 2).remove_columns("img").save_to_disk(tmp_path / "blind")
    assert "which split? There are first, second; add one" in refused("both")
    assert "there is no split 'third'; there are: first, second" in refused("both/third")
    assert "none is called 'test'; leave it out" in refused("one/test")
    assert "corresponds to no data" in refused("none")
    assert "no column holds pictures as bytes" in refused("blind")
    (tmp_path / "papers").mkdir()
    assert "cannot be loaded" in refused("papers") and "save_to_disk" in refused("papers")
    with pytest.raises(UserError, match="neither a folder nor a name on the hub"):
        open_source("hf:a/b/c/d")


def test_without_a_connection_one_message_says_what_to_do() -> None:
    code = """
from onestage.data import open_source
from onestage.spec import UserError
try:
    open_source("hf:somebody/something/train")
except UserError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith("hf:somebody/something/train: cannot be loaded (") and run.stderr == ""
    assert "without a connection, name a folder" in run.stdout
