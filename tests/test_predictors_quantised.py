"""VQ-KD's code book and decoder, against loops in double precision, and what a code book owes a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from onestage.layers.codebook import CodeBook
from onestage.methods import METHODS
from onestage.ops import place_of, sincos_2d
from onestage.predictors import Quantised
from onestage.types import POOLED, Tokens, Wanted
from small import lean
from test_objective import answers_for, batch_for, objective_for

GRID = (2, 3)


def sphere(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def book_of(count: int, width: int, decay: float = 0.9) -> CodeBook:
    book = CodeBook(count, width, decay)
    book.codes.copy_(sphere(count, width, seed=1))
    return book


def test_codes_move_as_the_slow_formula_says() -> None:
    """The nearest code by Euclid's distance; its rows' direction enters it with weight 1 - decay; others stay."""
    book, rows = book_of(6, 4), sphere(2, 5, 4)
    before, sums, counts = book.codes.double(), torch.zeros(6, 4, dtype=torch.float64), [0] * 6
    for row in rows.double().flatten(0, 1):
        best = min(range(6), key=lambda code: float((row - before[code]).square().sum()))
        sums[best] += row
        counts[best] += 1
    book(rows)
    assert torch.equal(book.codes.double(), before), "nothing moves before the step is taken"
    book.after_step()
    for code in range(6):
        expected = before[code]
        if counts[code]:
            mixed = 0.9 * before[code] + 0.1 * sums[code] / sums[code].norm()
            expected = mixed / mixed.norm()
        torch.testing.assert_close(book.codes[code].double(), expected, rtol=1e-5, atol=1e-6)
        share = 0.9 / 6 + 0.1 * counts[code] / 10
        torch.testing.assert_close(book.usage[code].double().item(), share, rtol=1e-5, atol=1e-6)
    share = book.usage.double() / book.usage.double().sum()
    torch.testing.assert_close(book.perplexity().double(), (-(share * share.log()).sum()).exp(), rtol=1e-5, atol=0)


def test_the_gradient_passes_straight_through() -> None:
    book, rows = book_of(6, 4), sphere(1, 5, 4).requires_grad_()
    slope = torch.randn(1, 5, 4)
    quantised = book(rows)
    (quantised * slope).sum().backward()
    torch.testing.assert_close(rows.grad, slope)
    torch.testing.assert_close(quantised.detach(), book.codes[book.assign(rows.detach())])


def test_a_skipped_step_and_a_look_without_gradients_leave_no_trace() -> None:
    book = book_of(6, 4)
    before = book.codes.clone()
    book(sphere(2, 5, 4))
    book.after_skip()
    with torch.no_grad():
        book(sphere(2, 5, 4))
    book.eval()(sphere(2, 5, 4))
    book.after_step()
    assert torch.equal(book.codes, before)


def test_dead_codes_are_revived() -> None:
    """All codes in one place but one: rows of the whole sphere spread over nearly all of them in the end."""
    book = CodeBook(16, 8, decay=0.8)
    book.codes.copy_(functional.normalize(torch.ones(16, 8) + 0.01 * sphere(16, 8), dim=-1))
    for step in range(120):
        book(sphere(8, 16, 8, seed=step))
        book.after_step()
    assert float(book.perplexity()) > 10
    torch.testing.assert_close(book.codes.norm(dim=1), torch.ones(16))


def test_quantised_is_bottleneck_codes_and_decoder() -> None:
    torch.manual_seed(0)
    head = Quantised(codes=12, values=4, width=8, heads=2, commitment=0.5).build(6, 5, GRID).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.4)
    order = torch.tensor([[4, 1, 3, 0, 2, 5]] * 2)
    rows = torch.randn(2, 6, 6)
    tokens = Tokens(rows, rows.mean(dim=1), place_of(order), GRID, None)
    guess = head(tokens, Wanted(torch.tensor([[POOLED, 1, 3]] * 2), GRID, None))
    cost, double = head.cost().detach().double(), head.double().requires_grad_(False)
    for sample in range(2):
        codes = []
        for cell in range(6):
            row = rows[sample, order[sample].tolist().index(cell)].double()
            inside = torch.tanh(double.narrow[0].weight @ row + double.narrow[0].bias)
            narrow = double.narrow[2].weight @ inside + double.narrow[2].bias
            narrow = narrow / narrow.norm()
            best = min(double.book.codes, key=lambda code, narrow=narrow: float((narrow - code).square().sum()))
            torch.testing.assert_close(cost[sample, cell], 0.5 * (narrow - best).square().mean(), rtol=1e-4, atol=1e-5)
            codes.append(double.widen.weight @ best + double.widen.bias)
        whole = torch.stack(codes) + sincos_2d(8, GRID).double()
        decoded = double.norm(double.blocks(whole.unsqueeze(0)))[0]
        out = torch.stack([double.head[2](torch.tanh(double.head[0](row))) for row in decoded])
        expected = torch.stack([out.mean(dim=0), out[1], out[3]])
        torch.testing.assert_close(guess[sample].detach().double(), expected, rtol=1e-4, atol=1e-4)


def test_the_row_costs_its_cosine_and_its_commitment() -> None:
    row = lean(METHODS["vqkd"])
    objective, batch, answers = objective_for(row), batch_for(row), answers_for(row)
    represented = objective.represent(batch, answers)
    losses = objective.score(represented)
    guess, target = represented.guesses["codes"].double(), represented.targets["codes"].rows.double()
    cosine = functional.cosine_similarity(guess, target, dim=-1).mean()
    commitment = represented.costs["codes"].double().mean()
    assert 0 < float(commitment.detach()) < 0.5
    torch.testing.assert_close(losses.total.double(), commitment - cosine, rtol=1e-4, atol=1e-5)
    assert 1 <= float(losses.watched["codes/codes"]) <= 24
