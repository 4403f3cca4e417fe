"""Features, class names and zero-shot classification, against loops."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onestage.data.classes import read_classes
from onestage.evaluation import (
    EVALUATIONS,
    ZeroShot,
    clip_templates,
    features,
    heat_map,
    result,
)
from onestage.evaluation.labels import accuracies, label_ranks
from onestage.ops import place_of
from onestage.roles import BadSample, Picture, Sample, Source, Space, Teacher
from onestage.spec import UserError
from onestage.types import Tokens

SIDE = 4


@final
class Flat(Picture):
    """A picture of one colour; broken where there is none."""

    def __init__(self, colour: tuple[int, int, int] | None, size: tuple[int, int] = (6, 4)) -> None:
        self.colour, self._size = colour, size

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def decode(self) -> np.ndarray:
        if self.colour is None:
            raise BadSample("broken")
        return np.broadcast_to(np.array(self.colour, dtype=np.uint8), (*self._size[::-1], 3))


@final
class Listed(Source):
    def __init__(self, samples: Sequence[Sample | None], classes: tuple[str, ...] = (), name: str = "listed") -> None:
        self.samples, self.classes, self.name = samples, classes, name

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if sample is None:
            raise BadSample("gone")
        return sample

    def fingerprint(self) -> str:
        return self.name


@final
class Colours(Teacher):
    """A colour is its own embedding, and a text is looked up."""

    def __init__(self, words: dict[str, Sequence[float]], has_text: bool = True) -> None:
        self.reference, self.grid, self.size, self.licence, self.scale = (
            "colours",
            (2, 2),
            SIDE,
            "none",
            100.0,
        )
        self.has_text = self.has_joint = has_text
        self.templates, self.statistics, self.words = (), "none", words
        self.asked: list[str] = []
        self.sizes: list[tuple[int, ...]] = []

    def parts(self) -> tuple[nn.Module, ...]:
        return ()

    def width(self, space: Space) -> int:
        return 3

    def tokens(self, pixels: Tensor, space: Space) -> Tokens:
        self.sizes.append(tuple(pixels.shape))
        colour = pixels.mean(dim=(2, 3)) * (1 if space == "joint" else 2)
        cells = torch.arange(4).expand(len(pixels), -1)
        return Tokens(colour[:, None] * torch.tensor([0.0, 1, 2, 3])[:, None], colour, place_of(cells), (2, 2), None)

    def text(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        return torch.tensor([self.words[text] for text in texts], dtype=torch.float32)


def of(*labels: int | None) -> list[Sample]:
    """One sample a label: a colour near that axis."""
    colours = [(200, 40, 10), (30, 210, 20), (20, 50, 220)]
    return [
        Sample(key=str(number), picture=Flat(colours[(label or 0) % 3]), label=label)
        for number, label in enumerate(labels)
    ]


def test_features_keep_order_and_count_what_is_damaged() -> None:
    samples: list[Sample | None] = list(of(*range(9)))
    samples[2] = None
    samples[5] = Sample(key="5", picture=Flat(None), label=5)
    seen: list[tuple[int, int]] = []
    model = Colours({})
    found = features(
        model,
        Listed(samples),
        "joint",
        "cls",
        batch=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.keys == ("0", "1", "3", "4", "6", "7", "8") and found.skipped == 2
    assert found.labels.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert torch.allclose(found.rows[0], torch.tensor([200, 40, 10]) / 255)
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert model.sizes == [(3, 3, SIDE, SIDE), (3, 3, SIDE, SIDE), (1, 3, SIDE, SIDE)]


def test_features_pool_space_and_limit() -> None:
    source = Listed([*of(0, 1, 2, 0, 1, 2, None)])
    cls = features(Colours({}), source, "joint", "cls").rows
    assert torch.allclose(features(Colours({}), source, "joint", "mean").rows, cls * 1.5)
    assert torch.allclose(features(Colours({}), source, "raw", "cls").rows, cls * 2)
    assert features(Colours({}), source, "joint", "cls", limit=3).keys == ("0", "2", "4")
    assert features(Colours({}), source, "joint", "cls").labels.tolist()[-1] == -1
    assert len(features(Colours({}), Listed([None, None]), "joint", "cls").rows) == 0
    model = Colours({})
    assert torch.equal(features(model, source, "joint", None).rows, cls)
    model.pool = "mean"
    assert torch.allclose(features(model, source, "joint", None).rows, cls * 1.5)


def test_zero_shot_against_loops() -> None:
    draw = np.random.default_rng(0)
    names, templates = ("red", "green", "blue", "grey"), ("a {}", "{} thing", "the {} one of {}")
    words = {t.replace("{}", n): draw.normal(size=3) + np.eye(4, 3)[i] for i, n in enumerate(names) for t in templates}
    samples = [
        Sample(key=str(i), picture=Flat(tuple(int(v) for v in draw.integers(0, 255, 3))), label=i % 4)
        for i in range(40)
    ]
    model = Colours({text: [float(v) for v in row] for text, row in words.items()})
    got = ZeroShot(templates=templates).run(model, Listed(samples, names), None)

    hits = []
    for sample in samples:
        assert isinstance(sample.picture, Flat) and sample.picture.colour is not None
        scores = []
        for name in names:
            total = np.zeros(3)
            for template in templates:
                row = words[template.replace("{}", name)]
                total += row / math.sqrt(float((row**2).sum()))
            colour = np.array(sample.picture.colour) / 255
            scores.append(float((colour * total).sum() / np.linalg.norm(total) / np.linalg.norm(colour)))
        hits.append(scores.index(max(scores)) == sample.label)
    by_class = [
        np.mean([hit for hit, sample in zip(hits, samples, strict=True) if sample.label == c]) for c in range(4)
    ]
    assert 0 < sum(hits) < 40
    assert got["top1"] == pytest.approx(np.mean(hits)) and got["mean_per_class"] == pytest.approx(np.mean(by_class))
    assert got["chance"] == 0.25 and got["samples"] == 40 and "top5" not in got


def test_equal_names_and_equal_scores_go_to_the_lowest_class() -> None:
    model = Colours({"missile": [1.0, 0, 0], "x": [0.0, 1, 0]})
    source = Listed(of(0, 1, 2), ("missile", "x", "missile"))
    blue_is_red = Listed([*of(0), Sample(key="b", picture=Flat((200, 40, 10)), label=2)], source.classes)
    assert ZeroShot(templates=("{}",)).run(model, blue_is_red, None)["top1"] == 0.5
    ranks = label_ranks(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]))
    assert ranks.tolist() == [0, 1, 2, 2]
    assert label_ranks(torch.full((2, 3), torch.nan), torch.tensor([0, 2])).tolist() == [0, 2]
    assert label_ranks(torch.tensor([[torch.nan, -5.0, 0.0]]), torch.tensor([1])).tolist() == [1]


def test_accuracies_count_only_classes_that_occur() -> None:
    got = accuracies(torch.tensor([0, 0, 4, 5, 0]), torch.tensor([0, 0, 0, 1, 11]), 12)
    assert got == pytest.approx({"top1": 0.6, "top5": 0.8, "mean_per_class": (2 / 3 + 0 + 1) / 3, "chance": 1 / 12})


def test_prompts() -> None:
    assert len(clip_templates()) == 80 and clip_templates()[0] == "a bad photo of a {}."
    model = Colours({t.replace("{}", n): [1.0, 0, 0] for t in clip_templates() for n in ("a", "b")})
    for templates in (None, (), ("clip",)):
        assert ZeroShot(templates=templates).run(model, Listed(of(0, 1), ("a", "b")), None)["samples"] == 2
    assert len(model.asked) == 3 * 2 * 80
    with pytest.raises(UserError, match=r"'a cat'.*\{\}"):
        ZeroShot(templates=("a cat",)).run(model, Listed(of(0), ("a",)), None)


def test_class_lists(tmp_path: Path) -> None:
    lines, numbers, bad = tmp_path / "names.txt", tmp_path / "names.json", tmp_path / "bad.json"
    lines.write_text("\ufeffred\r\n  green \nblue\n\n", encoding="utf-8")
    numbers.write_text(json.dumps(["red", "green", "blue"]))
    assert read_classes(lines) == read_classes(numbers) == ("red", "green", "blue")
    bad.write_text('{"red": 0}')
    with pytest.raises(UserError, match="expected a list"):
        read_classes(bad)
    bad.write_text("[")
    with pytest.raises(UserError, match="not valid JSON"):
        read_classes(bad)
    lines.write_text("red\n\nblue")
    with pytest.raises(UserError, match="class 2 has an empty name"):
        read_classes(lines)
    with pytest.raises(UserError, match="cannot be read"):
        read_classes(tmp_path / "none.txt")


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    two = tmp_path / "two.txt"
    two.write_text("red\ngreen\n")
    words = {"red": [1.0, 0, 0], "green": [0.0, 1, 0], "blue": [0.0, 0, 1]}
    asked = ZeroShot(classes=two, templates=("{}",))
    with pytest.raises(UserError, match="names 2 classes, but listed has 3 labels"):
        asked.run(Colours(words), Listed(of(0, 1, 2), tuple(words)), None)
    with pytest.raises(UserError, match="names 2 classes, but listed has the label 2"):
        asked.run(Colours(words), Listed(of(0, 1, 2)), None)
    assert asked.run(Colours(words), Listed(of(0, 1, None)), None) == pytest.approx(
        {"top1": 1, "mean_per_class": 1, "chance": 0.5, "samples": 2, "skipped": 1}
    )
    with pytest.raises(UserError, match="no class names"):
        ZeroShot().run(Colours(words), Listed(of(0)), None)
    with pytest.raises(UserError, match="no sample has a label"):
        asked.run(Colours(words), Listed(of(None, None)), None)
    with pytest.raises(UserError, match="none of its 2 samples can be decoded"):
        asked.run(Colours(words), Listed([None, None]), None)
    with pytest.raises(UserError, match="no text tower"):
        asked.run(Colours(words, has_text=False), Listed(of(0, 1)), None)


def test_heat_map_against_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    rows, text = torch.randn(6, 5, generator=draw), torch.randn(5, generator=draw)
    got = heat_map(rows, text, (2, 3))
    for cell in range(6):
        a, b = rows[cell].double(), text.double()
        cosine = sum(float(a[i] * b[i]) for i in range(5)) / math.sqrt(float(a @ a)) / math.sqrt(float(b @ b))
        assert got[cell // 3, cell % 3].item() == pytest.approx(cosine, abs=1e-6)
    with pytest.raises(ValueError, match="2 x 2"):
        heat_map(rows, text, (2, 2))


def test_result_is_plain_json_and_every_evaluation_says_what_it_is() -> None:
    answer = result("knn", "runs/a", "digits:test", {"top1": 0.5}, 10, 1.23456, "0.1.0")
    assert json.loads(json.dumps(answer)) == answer
    assert list(answer) == ["task", "model", "data", "metrics", "samples", "seconds", "version"]
    assert list(EVALUATIONS) == ["zero-shot", "retrieval", "knn", "linear", "classify", "dense-probe"]
    assert all(len((task.__doc__ or "").split("\n")[0]) > 20 for task in EVALUATIONS.values())
