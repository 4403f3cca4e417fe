"""Which texts the loader reads, and what it does about damaged samples."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loading import drawn, made, same, sized
from onestage.data import Digits, Quarantine, Scenes
from onestage.data.decode import Pixels
from onestage.encoders.words import text_id
from onestage.engine.loader import batches
from onestage.engine.metrics import read_metrics
from onestage.engine.texts import ShortFirst, choose
from onestage.pretraining import prepare, start
from onestage.pretraining.prepare import open_data
from onestage.roles import BadSample, Picture, Sample, Source
from onestage.spec import UserError
from small import BATCH, ROWS, TAUGHT, small

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning"),
]


# --- Texts -----------------------------------------------------------------------------------------------------------


class Deaf(Sample):
    """A sample whose texts nobody may touch."""

    def __getattribute__(self, name: str) -> Any:
        assert name != "texts", "a text was read"
        return super().__getattribute__(name)


class Silent(Source):
    """Digits that say nothing."""

    def __init__(self) -> None:
        self.digits = Digits()
        self.name, self.classes, self.has_texts, self.has_labels = "silent", self.digits.classes, True, True
        self.keeps_captions = frozenset()

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Sample:
        one = self.digits[index]
        return Deaf(key=one.key, picture=one.picture, texts=one.texts, label=one.label)

    def fingerprint(self) -> str:
        return "silent"


@pytest.mark.parametrize("row", [name for name, method in ROWS.items() if not method.needs_texts])
def test_a_row_that_needs_no_text_reads_none(row: str) -> None:
    for batch in batches(made(Silent(), sized(row)), 0, 3, 0):
        assert batch.words is None
        assert (batch.label is None) != ROWS[row].needs_labels


def test_a_row_that_needs_texts_would_be_caught() -> None:
    with pytest.raises(AssertionError, match="a text was read"):
        made(Silent(), sized("clip"))[0]


def test_a_run_of_a_row_without_texts_reads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setitem(open_data.__globals__, "open_source", lambda text: Silent())
    start(small("mae", steps=2), tmp_path / "run", [])
    assert [record["texts"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")][-1] == 0


def test_words_are_those_of_the_samples() -> None:
    source = Scenes()
    data = made(source, sized("clip"))
    known = [source[data.stream.at(number).sample].texts for number in range(4 * BATCH)]
    batch = [data[step].words for step in range(4)]
    ids = [number for words in batch if words is not None for number in words.text_id.tolist()]
    assert len(ids) == 4 * BATCH, "a text a sample"
    read = [next(text for text in texts if text_id(text) == number) for texts, number in zip(known, ids, strict=True)]
    places = Counter(texts.index(text) for texts, text in zip(known, read, strict=True))
    assert len(places) > 1, "all texts of a sample are read, not the first alone"


def test_short_first_reads_the_first_alone_and_then_others() -> None:
    policy = ShortFirst(start=0.4, end=0.8, others=0.5)
    assert [policy.share(at) for at in (0.0, 0.4, 0.5, 0.6, 0.8, 1.0)] == pytest.approx([0, 0, 0.125, 0.25, 0.5, 0.5])
    rng = np.random.default_rng(0)
    texts = ("short", "longer one", "the longest of all")
    for at, share in ((0.2, 0.0), (0.6, 0.25), (0.9, 0.5)):
        count = Counter(choose(texts, rng, policy, at) for _ in range(3000))
        assert 1 - count["short"] / 3000 == pytest.approx(share, abs=0.03)
        assert count["longer one"] == pytest.approx(count["the longest of all"], abs=150)
    assert choose(("alone",), rng, policy, 1.0) == "alone"
    every = Counter(choose(texts, rng, None, 0.0) for _ in range(3000))
    assert all(every[text] == pytest.approx(1000, abs=120) for text in texts)


def test_short_first_follows_the_progress_of_the_run() -> None:
    source = Scenes()
    data = made(source, sized("clip"), texts=ShortFirst(start=0.5, end=0.5, others=1.0), total=10)
    for number in range(10 * BATCH):
        texts, read = source[data.stream.at(number).sample].texts, drawn(data, number)[0].text
        assert len(texts) > 1
        assert (read == texts[0]) == (number <= 5 * BATCH)


# --- Damaged samples -------------------------------------------------------------------------------------------------


class Broken(Picture):
    """A picture that fails while it is read."""

    size = (8, 8)

    def decode(self) -> np.ndarray:
        raise BadSample("torn")


class Damaged(Source):
    """One-coloured pictures whose colour is their number; some are torn, some missing."""

    def __init__(self, torn: range, missing: range, length: int = 64) -> None:
        self.name, self.torn, self.missing, self.length = "damaged", torn, missing, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index in self.missing:
            raise BadSample("missing")
        picture = Broken() if index in self.torn else Pixels(np.full((8, 8, 3), index, dtype=np.uint8))
        return Sample(key=f"key{index}", picture=picture)

    def fingerprint(self) -> str:
        return "damaged"


BAD = {"source": "damaged", "reason": "torn"}


@pytest.mark.parametrize("workers", [0, 3])
def test_damaged_samples_are_replaced_by_the_same_ones_everywhere(workers: int, tmp_path: Path) -> None:
    source, file = Damaged(range(5), range(60, 64)), tmp_path / "quarantine.jsonl"
    alone = [made(source, sized("mae"))[step] for step in range(16)]
    found = list(batches(made(source, sized("mae"), quarantine=Quarantine(file)), 0, 16, workers))
    assert all(same(one, two) for one, two in zip(alone, found, strict=True))
    shown = torch.cat([batch.views["view1"].pixels[:, 0, 0, 0] for batch in found]).tolist()
    assert not set(shown) & {*range(5), *range(60, 64)}
    stream = made(source, sized("mae")).stream
    wanted = [stream.at(number).sample for number in range(16 * BATCH)]
    replaced = [number for number, sample in enumerate(wanted) if sample in {*range(5), *range(60, 64)}]
    assert len(replaced) == 18, "two epochs of nine"
    assert all((shown[number] == sample) == (number not in replaced) for number, sample in enumerate(wanted))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    expected = [{**BAD, "key": f"key{index}"} for index in range(5)]
    expected += [{**BAD, "key": str(index), "reason": "missing"} for index in range(60, 64)]
    assert {json.dumps(line, sort_keys=True) for line in lines} == {json.dumps(e, sort_keys=True) for e in expected}
    assert Quarantine(file).count() == 9
    if workers == 0:
        assert len(lines) == 9, "each once, though met twice or more"


def test_samples_without_what_the_row_needs_are_replaced(tmp_path: Path) -> None:
    class Half(Source):
        """Every fourth digit has no text and no label."""

        def __init__(self) -> None:
            self.digits = Digits()
            self.name, self.has_texts, self.has_labels = "half", True, True

        def __len__(self) -> int:
            return 80

        def __getitem__(self, index: int) -> Sample:
            one = self.digits[index]
            return dataclasses.replace(one, texts=(), label=None) if index % 4 == 0 else one

        def fingerprint(self) -> str:
            return "half"

    for row, reason in (("clip", "it has no text"), ("supervised", "it has no label")):
        file = tmp_path / f"{row}.jsonl"
        data = made(Half(), sized(row), quarantine=Quarantine(file))
        for batch in batches(data, 0, 10, 0):
            assert batch.label is None or int(batch.label.min()) >= 0
        reasons = [json.loads(line)["reason"] for line in file.read_text().splitlines()]
        assert reasons == [reason] * 20


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_cannot_be_used_are_one_message(workers: int) -> None:
    """Also out of a loading process, whose traceback is nobody's business."""
    data = made(Damaged(range(64), range(0)), sized("mae"))
    with pytest.raises(UserError) as caught:
        list(batches(data, 0, 8, workers))
    assert str(caught.value).startswith("damaged: a sample and 8 others drawn in its place cannot be used")
    assert "Traceback" not in str(caught.value)


def test_a_damaged_folder_trains_and_lists_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from onestage.pretraining import resume

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for number in range(16):
        Image.new("RGB", (40, 36), (10 * number, 90, 200)).save(data / f"{number:02}.png")
    (data / "07.png").write_bytes((data / "07.png").read_bytes()[:40])
    start(small("mae", steps=6, data=str(data)), run, [])
    listed = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in listed] == ["07.png"]
    for step in range(3, 7):
        (run / "checkpoints" / f"step_{step:08d}" / "manifest.json").unlink()
    resume(run)
    assert Quarantine(run / "quarantine.jsonl").count() == 1


@pytest.mark.parametrize("row", ["clip", "mae"])
def test_a_prepared_run_reads_texts_only_where_it_needs_them(row: str) -> None:
    assert row not in TAUGHT
    words = prepare(small(row), None).batches[0].words
    assert (words is not None) == (row == "clip")
    if words is not None:
        assert words.ids.shape == (BATCH, 8)  # of 16, behind the longest text
