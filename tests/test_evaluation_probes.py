"""Nearest neighbours and the linear probe: slow loops, a separable toy, sources that do not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onestage.evaluation import Knn, Linear, knn
from onestage.evaluation.heads import Heads, first_weights, moments, train_heads
from onestage.evaluation.knn import votes
from onestage.evaluation.linear import epochs, head_ranks
from onestage.ops import place_of
from onestage.roles import Picture, Sample, Source, Space, Teacher
from onestage.spec import UserError
from onestage.types import Tokens


@final
class Coded(Picture):
    """A feature vector written into a row of pixels."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def size(self) -> tuple[int, int]:
        return 4, 4

    def decode(self) -> np.ndarray:
        return np.broadcast_to(self.values.reshape(4, 4, 1), (4, 4, 3)).copy()


@final
class Points(Source):
    def __init__(
        self, rows: np.ndarray, labels: Sequence[int | None], name: str, classes: tuple[str, ...] = ()
    ) -> None:
        self.rows, self.labels, self.name, self.classes = rows, labels, name, classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(key=str(index), picture=Coded(self.rows[index]), label=self.labels[index])

    def fingerprint(self) -> str:
        return self.name


@final
class Pixels(Teacher):
    """The pixels are the features."""

    def __init__(self) -> None:
        self.reference, self.grid, self.size, self.licence, self.scale = "pixels", (1, 1), 4, "none", 1.0
        self.has_text, self.has_joint, self.templates, self.statistics = False, False, (), "none"

    def parts(self) -> tuple[nn.Module, ...]:
        return ()

    def width(self, space: Space) -> int:
        return 16

    def tokens(self, pixels: Tensor, space: Space) -> Tokens:
        assert space == "raw"
        rows = pixels[:, 0].flatten(1)
        cells = torch.zeros(len(rows), 1, dtype=torch.long)
        return Tokens(rows[:, None], rows, place_of(cells), (1, 1), None)

    def text(self, texts: Sequence[str]) -> Tensor:
        raise AssertionError("no texts here")


def clouds(count: int, seed: int, name: str, spread: float = 60.0, classes: int = 3) -> Points:
    """Classes as clouds around fixed centres."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).integers(60, 190, size=(classes, 16))
    labels = [int(label) for label in draw.integers(0, classes, count)]
    rows = np.clip(centres[labels] + draw.normal(size=(count, 16)) * spread, 0, 255).astype(np.uint8)
    return Points(rows, labels, name, tuple("abcdefghijkl"[:classes]))


def slow_knn(bank: Points, test: Points, k: int, temperature: float) -> list[int]:
    guesses = []
    for row in test.rows.astype(np.float64):
        near = []
        for number, other in enumerate(bank.rows.astype(np.float64)):
            near.append((float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)), number))
        score: dict[int, float] = {}
        for similarity, number in sorted(near, reverse=True)[:k]:
            label = bank.labels[number]
            assert label is not None
            score[label] = score.get(label, 0.0) + math.exp(similarity / temperature)
        guesses.append(max(sorted(score), key=score.__getitem__))
    return guesses


@pytest.mark.parametrize("elements", [1 << 26, 400])
def test_knn_against_a_slow_loop(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "ELEMENTS", elements)
    bank, test = clouds(150, 0, "bank"), clouds(37, 1, "test")  # fewer than a hundred to test
    got = Knn(batch=32).run(Pixels(), test, bank)
    for k in (10, 20, 100, 150):
        right = np.mean([a == b for a, b in zip(slow_knn(bank, test, k, 0.07), test.labels, strict=True)])
        assert got[f"top1_k{k}"] == pytest.approx(right), k
    assert got["top1"] == got["top1_k20"] and "top1_k200" not in got
    assert 1 / 3 < got["top1"] < 1 and got["bank"] == 150 and got["samples"] == 37


def test_knn_with_a_tiny_bank() -> None:
    got = Knn().run(Pixels(), clouds(5, 1, "test", spread=5), clouds(7, 0, "bank", spread=5))
    assert got["top1"] == got["top1_k7"] and [key for key in got if "_k" in key] == ["top1_k7"]


def test_equal_votes_go_to_the_lowest_class() -> None:
    bank, labels = torch.eye(3)[:2], torch.tensor([2, 1])
    scores = votes(bank, labels, torch.tensor([[1.0, 1.0, 0.0]]), [2], 3, 0.07)[2]
    assert scores[0, 1] == scores[0, 2] and int(scores.argmax()) == 1


def test_votes_need_no_normalised_features() -> None:
    draw = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(30, 8, generator=draw), torch.randn(9, 8, generator=draw)
    labels = torch.randint(4, (30,), generator=draw)
    scale = torch.rand(30, 1, generator=draw) + 0.1
    one, other = (votes(rows, labels, queries * 3, [5], 4, 0.07)[5] for rows in (bank, bank * scale))
    assert torch.allclose(one, other, rtol=1e-4)


def test_linear_separates_what_can_be_separated_and_repeats_itself() -> None:
    train, test = clouds(300, 0, "train", spread=25), clouds(60, 1, "test", spread=25)
    got = Linear(steps=200, rows=64).run(Pixels(), test, train)
    assert got["top1"] > 0.95 and got["held_out_top1"] > 0.9
    assert got["train"] == 270 and got["samples"] == 60 and got["chance"] == pytest.approx(1 / 3)
    assert got[f"top1_lr{got['rate']:g}"] == got["top1"]
    assert sum(key.startswith("top1_lr") for key in got) == 7
    assert got == Linear(steps=200, rows=64).run(Pixels(), test, train)


def test_the_rate_is_chosen_without_the_test_labels() -> None:
    train, test = clouds(200, 0, "train"), clouds(60, 1, "test")
    wrong = Points(test.rows, [(label or 0) * 0 for label in test.labels], "wrong", test.classes)
    options = Linear(steps=60, rows=64, rates=(1e-6, 0.1))
    assert options.run(Pixels(), test, train)["rate"] == options.run(Pixels(), wrong, train)["rate"] == 0.1


def trained(
    rows: Tensor, labels: Tensor, classes: int, rates: tuple[float, ...], steps: int, size: int, seed: int
) -> Heads:
    draw = torch.Generator().manual_seed(seed)
    first = first_weights(rows.shape[1], classes, draw, rows.device)
    return train_heads(epochs(rows, labels, size, draw), first, rates, steps)


def test_heads_are_those_of_an_optimiser_for_each_rate() -> None:
    draw = torch.Generator().manual_seed(3)
    rows, labels = torch.randn(40, 5, generator=draw), torch.randint(3, (40,), generator=draw)
    rates, steps, size = (0.05, 0.5), 12, 16
    heads = trained(rows, labels, 3, rates, steps, size, 7)
    for number, rate in enumerate(rates):
        again = torch.Generator().manual_seed(7)
        weight = (torch.randn(5, 3, generator=again) * 0.01).requires_grad_()
        bias = torch.zeros(3, requires_grad=True)
        optimiser = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
        queue: list[int] = []
        for step in range(steps):
            if len(queue) < size:
                queue += torch.randperm(40, generator=again).tolist()
            take, queue = queue[:size], queue[size:]
            for group in optimiser.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad()
            nn.functional.cross_entropy(rows[take] @ weight + bias, labels[take]).backward()
            optimiser.step()
        # torch's momentum buffer holds gradients alone, so a changing rate acts as in ours.
        assert torch.allclose(heads.weight[number], weight.detach(), atol=1e-5)
        assert torch.allclose(heads.bias[number, 0], bias.detach(), atol=1e-5)


def test_a_rate_that_diverges_does_not_spoil_the_others() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 4, generator=draw) * 1e18
    labels = (rows[:, 0] > 0).long()
    calm = trained(rows / 1e18, labels, 2, (0.1,), 50, 20, 1)
    both = trained(rows / 1e18, labels, 2, (1e38, 0.1), 50, 20, 1)
    assert not both.weight[0].isfinite().all()
    assert torch.allclose(both.weight[1], calm.weight[0], atol=1e-6)
    assert (head_ranks(both, rows / 1e18, labels)[1] == 0).float().mean() > 0.9


def test_standardising_leaves_a_constant_feature_finite() -> None:
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert moments(rows)(rows).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("task", [Knn(), Linear(steps=5)])
def test_training_data_that_does_not_fit(task: Knn | Linear) -> None:
    test, train = clouds(10, 1, "test"), clouds(20, 0, "train")
    with pytest.raises(UserError, match="--train"):
        task.run(Pixels(), test, None)
    with pytest.raises(UserError, match="the same"):
        task.run(Pixels(), test, test)
    with pytest.raises(UserError, match="same classes in the same order"):
        task.run(Pixels(), test, Points(train.rows, train.labels, "other", ("b", "a", "c")))
    with pytest.raises(UserError, match="no sample has a label"):
        task.run(Pixels(), test, Points(train.rows, [None] * 20, "bare"))
    with pytest.raises(UserError, match="no sample has a label"):
        task.run(Pixels(), Points(test.rows, [None] * 10, "bare"), train)


def test_limit_is_for_both_sources() -> None:
    got = Knn(limit=8).run(Pixels(), clouds(30, 1, "test"), clouds(50, 0, "train"))
    assert got["samples"] == 8 and got["bank"] == 8
    with pytest.raises(UserError, match="one usable labelled image"):
        Linear(limit=1).run(Pixels(), clouds(30, 1, "test"), clouds(50, 0, "train"))
