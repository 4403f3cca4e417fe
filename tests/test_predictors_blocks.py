"""Predictors that read blocks of the student, and MILAN's decoder, against loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from onestage.ops import place_of, sincos_2d
from onestage.predictors import Aligned, Block, Prompting
from onestage.spec import UserError, from_plain
from onestage.types import POOLED, Layer, Tokens, Wanted

GRID = (2, 3)


def tokens(cells: list[list[int]], width: int, depth: int) -> Tokens:
    draw = torch.Generator().manual_seed(0)
    place, b, n = torch.tensor(cells), len(cells), len(cells[0])

    def layers() -> tuple[Layer, ...]:
        return tuple(
            Layer(torch.randn(b, n, width, generator=draw), torch.randn(b, width, generator=draw)) for _ in range(depth)
        )

    raw, normed = layers(), layers()
    return Tokens(normed[-1].rows, normed[-1].pooled, place_of(place), GRID, None, raw, normed)


def filled(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4, generator=draw)
    return module


CELLS = [[4, 1, 3], [0, 5, 2]]
WANTED = Wanted(torch.tensor([[POOLED, 1, 3], [POOLED, 5, 0]]), GRID, None)


def row(layer: Layer, sample: int, cell: int) -> Tensor:
    return (layer.pooled[sample] if cell == POOLED else layer.rows[sample, CELLS[sample].index(cell)]).double()


@pytest.mark.parametrize("depth", [4, 2])
def test_aligned_is_a_mix_of_blocks(depth: int) -> None:
    """MaskAlign: sum_s W[t, s] h_s through a linear map; a shallower student mixes what it has."""
    given, head = tokens(CELLS, 8, depth), Aligned(block=2, of=4).build(8, 5, GRID)
    assert [round(w, 2) for w in head.mix.tolist()] == [0.01, 0.01, 1.01, 0.01]
    filled(head)
    guess, weights = head(given, WANTED), head.mix.detach().double().tolist()
    for sample in range(2):
        for place, cell in enumerate(WANTED.cell[sample].tolist()):
            mixed = torch.zeros(8, dtype=torch.float64)
            for back in range(1, depth + 1):
                mixed += weights[4 - back] * row(given.layers[depth - back], sample, cell)
            expected = head.map.weight.double() @ mixed + head.map.bias.double()
            torch.testing.assert_close(guess[sample, place].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [1, 3])
def test_block_is_umts_head(block: int) -> None:
    """UMT: the block after the encoder's norm, plus positions, a linear map, a norm."""
    given, head = tokens(CELLS, 8, 4), filled(Block(block=block).build(8, 5, GRID))
    guess, positions = head(given, WANTED), sincos_2d(8, GRID).double()
    for sample in range(2):
        for place, cell in enumerate(WANTED.cell[sample].tolist()):
            read = row(given.normed[-block], sample, cell) + (0 if cell == POOLED else positions[cell])
            mapped = head.map.weight.double() @ read + head.map.bias.double()
            centred = (mapped - mapped.mean()) / (mapped.var(unbiased=False) + 1e-6).sqrt()
            expected = centred * head.norm.weight.double() + head.norm.bias.double()
            torch.testing.assert_close(guess[sample, place].double(), expected, rtol=1e-4, atol=1e-4)


def test_the_last_block_is_read_without_asking_for_blocks() -> None:
    given, head = tokens(CELLS, 8, 2), filled(Block().build(8, 5, GRID))
    assert (Block().of, Block(block=3).of) == (0, 3)
    torch.testing.assert_close(head(given, WANTED), head(given._replace(layers=(), normed=()), WANTED))


def test_a_block_that_is_not_mixed_is_refused() -> None:
    with pytest.raises(UserError, match="block: 5 is not among the 4"):
        from_plain(Aligned, {"block": 5, "of": 4})


def layer_norm(rows: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return centred * norm.weight + norm.bias


def test_prompting_updates_hidden_rows_alone() -> None:
    """MILAN: queries are hidden rows, keys and values the encoder's rows as they are and the hidden rows, normed."""
    given = tokens(CELLS, 8, 1)
    head = filled(Prompting(width=8, depth=2, heads=2).build(8, 5, GRID)).double()
    everything = Wanted(torch.tensor([[POOLED, 0, 1, 2, 3, 4, 5]] * 2), GRID, None)
    doubled = given._replace(rows=given.rows.double(), pooled=given.pooled.double())
    guess, positions = head(doubled, everything), sincos_2d(8, GRID).double()
    head.positions[1:].copy_(positions)
    for sample in range(2):
        hidden = sorted(set(range(6)) - set(CELLS[sample]))
        kept = [head.embed(doubled.pooled[sample])]
        kept += [head.embed(doubled.rows[sample, i]) + positions[cell] for i, cell in enumerate(CELLS[sample])]
        rows = [head.mask + positions[cell] for cell in hidden]
        for block in head.blocks:
            normed = [layer_norm(one, block.norm1) for one in rows]
            both = [block.key_value(one) for one in [*kept, *normed]]
            read = []
            for one in normed:
                query, parts = block.query(one), []
                for part in (slice(0, 4), slice(4, 8)):
                    logits = torch.stack([query[part] @ other[:8][part] / math.sqrt(4) for other in both])
                    weight = logits.exp() / logits.exp().sum()
                    parts.append(sum(w * other[8:][part] for w, other in zip(weight, both, strict=True)))
                read.append(block.out(torch.cat(parts)))
            rows = [one + new for one, new in zip(rows, read, strict=True)]
            rows = [one + block.feed(layer_norm(one, block.norm2)) for one in rows]
        whole = (
            {POOLED: kept[0]} | dict(zip(CELLS[sample], kept[1:], strict=True)) | dict(zip(hidden, rows, strict=True))
        )
        for place, cell in enumerate([POOLED, *range(6)]):
            expected = head.head(layer_norm(whole[cell], head.norm))
            torch.testing.assert_close(guess[sample, place], expected, rtol=1e-5, atol=1e-5)
