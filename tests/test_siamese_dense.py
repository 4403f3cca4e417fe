"""DenseCL: nearest matching, a queue for rows of cells, and the whole row, against loops in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from onestage.likelihood import Boltzmann
from onestage.methods import METHODS
from onestage.objective import Method
from onestage.objective.match import nearest
from onestage.ops import place_of
from onestage.spec import UserError, from_plain, to_plain
from onestage.types import Piece, Target, Tokens, Wanted
from small import lean
from test_objective import batch_for, objective_for


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (a.square().sum().sqrt() * b.square().sum().sqrt())


def most_alike(row: Tensor, rows: Tensor) -> int:
    return max(range(len(rows)), key=lambda other: float(cosine(row, rows[other]).detach()))


def test_the_nearest_row_is_that_of_the_greatest_cosine() -> None:
    """Wherever the rows of either side stand, and however long they are."""
    first, second = torch.tensor([[2, 0, 3, 1]] * 3), torch.tensor([[1, 3, 0, 2]] * 3)
    seen = Tokens(draw(3, 4, 5, seed=0), draw(3, 5, seed=1), place_of(first), (2, 2), None)
    other = Tokens(9 * draw(3, 4, 5, seed=2) + 1, draw(3, 5, seed=3), place_of(second), (2, 2), None)
    found = nearest(seen, other, Wanted(torch.tensor([[0, 1, 2, 3]] * 3), (2, 2), None)).cell
    for sample in range(3):
        for cell in range(4):
            row = seen.rows[sample, first[sample].tolist().index(cell)]
            assert int(found[sample, cell]) == int(second[sample, most_alike(row, other.rows[sample])])
    assert found.unique().numel() > 1


def infonce(guess: Tensor, right: Tensor, queue: Tensor, tau: float) -> Tensor:
    logits = torch.stack([cosine(guess, right), *[cosine(guess, key) for key in queue]]) / tau
    return logits.exp().sum().log() - logits[0]


def test_a_queue_keeps_one_row_of_a_sample_with_cells() -> None:
    torch.manual_seed(0)
    likelihood = Boltzmann("queue", temperature=0.3, size=6).build(4).double()
    guess, rows, whole = draw(2, 3, 4, seed=0).requires_grad_(), draw(2, 3, 4, seed=1), draw(2, 4, seed=2)
    weight = torch.tensor([[1.0, 0, 2], [0.5, 1, 1]], dtype=torch.float64)
    queue = likelihood.queue.clone()
    fast = likelihood(guess, Target(rows, None, weight, whole))
    costs = [
        weight[b, m] * infonce(guess[b, m], rows[b, m], queue, 0.3) / weight.sum() for b in range(2) for m in range(3)
    ]
    slow = torch.stack(costs).sum()
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-7)  # the temperature is kept in fp32
    (mine,), (theirs,) = torch.autograd.grad(fast, [guess]), torch.autograd.grad(slow, [guess])
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    likelihood.after_step()
    lengths = whole.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(likelihood.queue[:2], whole / lengths)
    torch.testing.assert_close(likelihood.queue[2:], queue[2:])
    with pytest.raises(UserError, match="its pooled row too"):
        likelihood(guess, Target(rows, None, None))


def test_densecl_equals_its_formula() -> None:
    """Half of MoCo v2's loss, and half of each cell's against the cell whose backbone row is the most alike to its own
    and a queue of mean dense rows."""
    method = lean(METHODS["densecl"])
    objective, batch = objective_for(method).double(), batch_for(method)
    objective.training_mode()
    views = {name: view._replace(pixels=view.pixels.double()) for name, view in batch.views.items()}
    one = objective.encoder("student")({"image": Piece(views["view1"])})
    two = objective.encoder("average")({"image": Piece(views["view2"])})
    heads = objective.projectors
    queries, keys = heads.trained["dense"](one).rows, heads.averaged["average_dense"](two).rows
    queues = {name: objective.likelihood(name).get_buffer("queue").clone() for name in ("key", "cells")}
    whole = [
        infonce(q, k, queues["key"], 0.2)
        for q, k in zip(heads.trained["head"](one).pooled, heads.averaged["average_head"](two).pooled, strict=True)
    ]
    dense = [
        infonce(queries[b, cell], keys[b, most_alike(one.rows[b, cell], two.rows[b])], queues["cells"], 0.2)
        for b in range(4)
        for cell in range(36)
    ]
    slow = sum(whole) / len(whole) / 2 + sum(dense) / len(dense) / 2
    found = objective(batch._replace(views=views), {})
    torch.testing.assert_close(found.total, slow, rtol=1e-6, atol=1e-6)
    objective.after_step(0, 10)
    means = keys.mean(dim=1)
    units = means / means.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(objective.likelihood("cells").get_buffer("queue")[:4], units, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": {"kind": "pixels", "rows": "all", "norm": "none"}}, "nearest compares the rows of an encoder"),
        ({"predictor": {"kind": "relative"}}, "answers row by row"),
        ({"match": "place"}, "match: nearest"),
        ({"match": "nearby"}, "'place' or 'nearest'"),
    ],
)
def test_what_cannot_be_matched_is_refused(changes: dict[str, Any], says: str) -> None:
    plain = to_plain(METHODS["densecl"])
    plain["terms"]["cells"] |= changes
    with pytest.raises(UserError, match=says):
        from_plain(Method, plain)
