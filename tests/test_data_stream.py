"""Generators, the seekable stream, and what becomes of samples that cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import numpy as np
import pytest
from PIL import Image

from onestage.data import Quarantine, Stream, first_good, generator, open_source
from onestage.data.decode import Pixels
from onestage.data.quarantine import ATTEMPTS, WATCHED
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError


@final
class Numbers(Source):
    """Samples of which some are bad."""

    def __init__(self, length: int, bad: set[int]) -> None:
        self.name, self.length, self.bad = "numbers", length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise BadSample("it is bad")
        return Sample(key=f"n{index}", picture=Pixels(np.full((1, 1, 3), index % 256, np.uint8)))

    def fingerprint(self) -> str:
        return str(self.length)


def test_a_generator_is_a_function_of_its_whole_key() -> None:
    keys: list[tuple[int | str, ...]] = [
        (0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, 1), (0, "1"), (0, 1, 1), (0, 11), (0, -1),
        (0, "a", 1), (0, 1, "a"), (0, "b", "a"), (0, "\udce4"), (2**70,), (2**64 + 2**70,),
    ]  # fmt: skip
    drawn = [tuple(generator(*key).integers(2**63, size=4)) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(generator(*key).integers(2**63, size=4)) for key in keys]


def test_a_generator_stays_what_it_is() -> None:
    """Whoever changes it changes every picture and crop of every run that is resumed."""
    assert generator(0, "scenes:train", 0).integers(1000, size=4).tolist() == GOLDEN


GOLDEN = [881, 704, 201, 319]


def test_generators_of_neighbouring_keys_are_independent() -> None:
    drawn = np.array([generator(0, "x", number).random(8) for number in range(4000)])
    assert np.abs(drawn.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / 4000)
    correlation = np.corrcoef(np.hstack([drawn[:-1], drawn[1:]]).T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    stream = Stream(0, 37)
    epochs = [[stream.at(epoch * 37 + position).sample for position in range(37)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [Stream(1, 37).at(number).sample for number in range(37)] != epochs[0]


def test_the_stream_does_not_depend_on_the_order_of_access() -> None:
    numbers = list(range(200))
    forward = {number: Stream(3, 23).at(number) for number in numbers}
    stream = Stream(3, 23)
    for number in generator(0, "shuffle").permutation(200).tolist() + numbers[::-1]:
        assert stream.at(number) == forward[number]
        assert len(stream._orders) <= 2
    assert [(draw.number, draw.epoch) for draw in forward.values()] == [(n, n // 23) for n in numbers]


def test_first_samples_are_uniform() -> None:
    counts = Counter(Stream(seed, 5).at(0).sample for seed in range(1000))
    assert max(abs(counts[sample] - 200) for sample in range(5)) < 4.5 * np.sqrt(200)


def test_a_bad_sample_is_written_down_and_replaced(tmp_path: Path) -> None:
    source, path = Numbers(50, {3, 7}), tmp_path / "new" / "quarantine.jsonl"
    quarantine = Quarantine(path)
    keys = [first_good(source, index, 0, lambda sample: sample.key, quarantine) for index in range(50)]
    assert [index for index in range(50) if keys[index] != f"n{index}"] == [3, 7]
    assert not {keys[3], keys[7]} & {"n3", "n7"}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(rows, key=lambda row: row["key"]) == [
        {"source": "numbers", "key": "3", "reason": "it is bad"},
        {"source": "numbers", "key": "7", "reason": "it is bad"},
    ]
    again = [first_good(source, index, 0, lambda sample: sample.key, Quarantine(None)) for index in (7, 3)]
    assert again == [keys[7], keys[3]], "a replacement depends on the seed and the slot alone"
    other = [first_good(source, 3, seed, lambda sample: sample.key, Quarantine(None)) for seed in range(20)]
    assert len(set(other)) > 10
    assert quarantine.count() == 2


def test_what_fails_while_a_sample_is_used_counts_as_well(tmp_path: Path) -> None:
    def use(sample: Sample) -> str:
        if sample.key == "n4":
            raise BadSample("no text")
        return sample.key

    quarantine = Quarantine(tmp_path / "q.jsonl")
    assert first_good(Numbers(50, set()), 4, 0, use, quarantine) != "n4"
    assert json.loads((tmp_path / "q.jsonl").read_text()) == {"source": "numbers", "key": "n4", "reason": "no text"}


def test_other_errors_are_not_swallowed() -> None:
    def use(sample: Sample) -> str:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        first_good(Numbers(5, set()), 0, 0, use, Quarantine(None))


def test_the_file_is_shared_by_processes_and_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    one, two = Quarantine(path), Quarantine(path)
    for quarantine in (one, two, one):
        quarantine.report("a", "1", "x" * 5000)
        quarantine.report("b", "1", "y")
    assert len(path.read_text().splitlines()) == 4
    assert one.count() == two.count() == Quarantine(path).count() == 2
    with path.open("a") as file:
        file.write('{"source": "a", "key": "torn')  # a process was killed while it wrote
    assert one.count() == 2


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"

    def write(letter: str) -> None:
        quarantine = Quarantine(path)
        for number in range(60):
            quarantine.report("a", str(number), letter * (number * 100))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, "abcd")) == [None] * 4
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 240 and Quarantine(path).count() == 60
    assert all(len(row["reason"]) == 100 * int(row["key"]) and len(set(row["reason"])) <= 1 for row in rows)


def test_a_slot_that_nothing_fills_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a sample and {ATTEMPTS} others") as caught:
        first_good(Numbers(40, set(range(40))), 0, 0, lambda sample: sample.key, Quarantine(tmp_path / "q.jsonl"))
    assert "it is bad" in str(caught.value) and str(tmp_path / "q.jsonl") in str(caught.value)
    assert 2 <= Quarantine(tmp_path / "q.jsonl").count() <= ATTEMPTS + 1


def run_through(source: Numbers, passes: int = 1) -> Quarantine:
    quarantine, stream = Quarantine(None), Stream(0, len(source))
    for number in range(passes * len(source)):
        first_good(source, stream.at(number).sample, 0, lambda sample: sample.key, quarantine)
    return quarantine


def test_a_source_that_is_mostly_bad_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"of the last \d+ samples drawn cannot be used \(\d+ x it is bad; last: \d+\)"
    ) as caught:
        run_through(Numbers(10_000, {number for number in range(10_000) if number % 10 < 6}))
    bad, tried = (int(word) for word in str(caught.value).split()[:6] if word.isdigit())
    assert WATCHED[0] <= tried <= WATCHED[1] and bad > tried / 2


@pytest.mark.parametrize("tenths", [1, 3])
def test_a_source_that_is_partly_bad_goes_on(tenths: int) -> None:
    """Also in a long run, where bad samples add up to more than the watched number."""
    bad = {number for number in range(3000) if number % 10 < tenths}
    assert run_through(Numbers(3000, bad), passes=2).count() == len(bad)


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        Quarantine(tmp_path / "file" / "q.jsonl").report("a", "1", "x")


def test_damaged_files_of_a_folder_are_replaced(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number:02}.png")
    whole = (tmp_path / "00.png").read_bytes()
    for name, content in (("03.png", b""), ("04.png", b"hello"), ("05.png", whole[:100])):
        (tmp_path / name).write_bytes(content)
    source, quarantine = open_source(str(tmp_path)), Quarantine(tmp_path / "quarantine.jsonl")
    for index in range(20):
        seen = first_good(source, index, 0, lambda sample: (sample.picture.size, sample.picture.decode()), quarantine)
        assert seen[0] == (8, 8) and seen[1].shape == (8, 8, 3)
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["key"] for row in rows) == ["03.png", "04.png", "05.png"]
    assert {row["source"] for row in rows} == {str(tmp_path)}
