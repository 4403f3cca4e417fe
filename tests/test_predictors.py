"""Predictors: plain maps against their formula, and the decoder's order, reach, size and start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onestage.ops import place_of, sincos_2d
from onestage.predictors import MLP, Decoder, DecoderPredictor, Linear, PredictorSpec
from onestage.spec import UserError, from_plain, spec
from onestage.types import POOLED, Tokens, Wanted

GRID = (2, 3)
WIDTH, OUT = 6, 5


@spec
class Holder:
    predictor: PredictorSpec


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens_at(cells: list[list[int]], seed: int = 0) -> Tokens:
    cell = torch.tensor(cells)
    rows, pooled = draw(*cell.shape, WIDTH, seed=seed), draw(cell.shape[0], WIDTH, seed=seed + 1)
    return Tokens(rows, pooled, place_of(cell), GRID, None)


def wanted(cells: list[list[int]]) -> Wanted:
    return Wanted(torch.tensor(cells), GRID, None)


KEPT = tokens_at([[1, 3, 4], [0, 2, 5]])
ALL = wanted([[POOLED, 0, 1, 2, 3, 4, 5]] * 2)


def small(depth: int = 2) -> DecoderPredictor:
    torch.manual_seed(0)
    decoder = Decoder(width=16, depth=depth, heads=4).build(WIDTH, OUT, GRID)
    assert isinstance(decoder, DecoderPredictor)
    return decoder.eval()


def test_linear_maps_each_wanted_row() -> None:
    torch.manual_seed(0)
    predictor = Linear().build(WIDTH, OUT, GRID)
    guess = predictor(KEPT, wanted([[POOLED, 4], [5, 0]]))
    weight, bias = predictor.map.weight, predictor.map.bias
    rows = [[KEPT.pooled[0], KEPT.rows[0, 2]], [KEPT.rows[1, 2], KEPT.rows[1, 0]]]
    for i in range(2):
        for m in range(2):
            torch.testing.assert_close(guess[i, m], weight @ rows[i][m] + bias)
    assert torch.equal(bias.detach(), torch.zeros(OUT))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_is_linear_layers_with_gelu_between(depth: int) -> None:
    torch.manual_seed(0)
    predictor = MLP(hidden=7, depth=depth).build(WIDTH, OUT, GRID)
    layers = [layer for layer in predictor.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in layers] == [WIDTH, 7, 7][:depth]
    row = KEPT.rows[1, 1]
    for number, layer in enumerate(layers):
        if number:
            row = row * 0.5 * (1 + torch.erf(row / math.sqrt(2)))
        row = layer.weight @ row + layer.bias
    torch.testing.assert_close(predictor(KEPT, wanted([[1], [2]]))[1, 0], row)


def test_mlp_is_as_wide_as_the_encoder_by_default() -> None:
    shapes = [tuple(p.shape) for p in MLP().build(WIDTH, OUT, GRID).parameters()]
    assert shapes == [(WIDTH, WIDTH), (WIDTH,), (OUT, WIDTH), (OUT,)]


def test_plain_maps_start_from_a_normal_of_002() -> None:
    torch.manual_seed(0)
    for predictor in (Linear().build(256, 256, GRID), MLP().build(256, 256, GRID)):
        for parameter in predictor.parameters():
            expected = 0.02 if parameter.ndim == 2 else 0.0
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.03, abs=1e-9)


def test_decoder_puts_every_row_where_its_cell_is() -> None:
    """Without blocks, an output depends on its own cell alone: its row or mask token, and its position."""
    decoder = small(depth=0)
    guess = decoder(KEPT, ALL)
    positions = torch.cat([torch.zeros(1, 16), sincos_2d(16, GRID)])
    for i, kept in enumerate([[1, 3, 4], [0, 2, 5]]):
        for column, cell in enumerate([POOLED, *range(6)]):
            if cell == POOLED:
                row = decoder.embed(KEPT.pooled[i])
            elif cell in kept:
                row = decoder.embed(KEPT.rows[i, kept.index(cell)])
            else:
                row = decoder.mask
            expected = decoder.head(decoder.norm(row + positions[cell + 1]))
            torch.testing.assert_close(guess[i, column], expected)


def test_decoder_does_not_care_in_which_order_the_rows_come() -> None:
    decoder = small()
    order = torch.tensor([[2, 0, 1], [1, 2, 0]])
    cell = KEPT.place.cell.gather(1, order)
    shuffled = KEPT._replace(rows=KEPT.rows.gather(1, order.unsqueeze(-1).expand(-1, -1, WIDTH)), place=place_of(cell))
    assert torch.equal(decoder(KEPT, ALL), decoder(shuffled, ALL))
    misplaced = KEPT._replace(place=place_of(cell))
    assert not torch.allclose(decoder(KEPT, ALL), decoder(misplaced, ALL), atol=1e-3)


def test_decoder_returns_the_wanted_cells_in_their_order() -> None:
    decoder = small()
    whole = decoder(KEPT, ALL)
    part = decoder(KEPT, wanted([[5, POOLED, 0], [2, 2, POOLED]]))
    torch.testing.assert_close(part[0], whole[0, [6, 0, 1]])
    torch.testing.assert_close(part[1], whole[1, [3, 3, 0]])


def test_decoder_equals_timm_blocks_over_the_restored_sequence() -> None:
    """The same network in MAE's way: rows, then mask tokens, put back by the inverse permutation."""
    decoder = small()
    order = torch.tensor([[1, 3, 4, 0, 2, 5], [0, 2, 5, 1, 3, 4]])
    restore = order.argsort(dim=1).unsqueeze(-1).expand(-1, -1, 16)
    shuffled = torch.cat([decoder.embed(KEPT.rows), decoder.mask.expand(2, 3, 16)], dim=1)
    rows = torch.cat([decoder.embed(KEPT.pooled).unsqueeze(1), shuffled.gather(1, restore)], dim=1)
    rows = rows + torch.cat([torch.zeros(1, 16), sincos_2d(16, GRID)])
    for block in decoder.blocks:
        rows = block(rows)
    torch.testing.assert_close(decoder(KEPT, ALL), decoder.head(decoder.norm(rows)))


def test_a_full_grid_needs_no_mask_token_yet_keeps_it_in_the_graph() -> None:
    """An input that hides by mask tokens gives every row; a parameter without gradient would stop DDP."""
    decoder = small()
    tokens = tokens_at([list(range(6))] * 2, seed=5)
    decoder(tokens, ALL).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())
    assert torch.equal(decoder.mask.grad, torch.zeros(16))


def test_decoder_runs_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        guess = small()(KEPT, ALL)
    torch.testing.assert_close(guess.float(), small()(KEPT, ALL), rtol=0.1, atol=0.1)


def test_decoder_of_mae_has_its_parameters() -> None:
    """26,109,184 with its fixed positions: ViT-B's 85,798,656 beside it make MAE's 111,907,840."""
    with torch.device("meta"):
        decoder = Decoder().build(768, 768, (14, 14))
    d, w, out = 768, 512, 768
    block = 2 * 2 * w + (3 * w * w + 3 * w) + (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w)
    expected = (d * w + w) + w + 8 * block + 2 * w + (w * out + out)
    trained = sum(parameter.numel() for parameter in decoder.parameters())
    assert trained == expected
    assert trained + decoder.positions.numel() == 111_907_840 - 85_798_656
    assert "positions" not in decoder.state_dict()


def test_decoder_starts_as_mae_does() -> None:
    torch.manual_seed(0)
    decoder = Decoder(width=64, depth=1, heads=4).build(96, 48, GRID)
    for name, parameter in decoder.named_parameters():
        value = parameter.detach()
        if name == "mask":
            assert float(value.std()) == pytest.approx(0.02, rel=0.3)
        elif value.ndim == 2:
            limit = math.sqrt(6 / sum(value.shape))
            assert limit * 0.98 < float(value.abs().max()) <= limit, name
        else:
            assert torch.equal(value, torch.ones_like(value) if "norm" in name and "weight" in name else 0 * value)


def test_specs_say_what_they_reach() -> None:
    assert [made.reaches for made in (Linear(), MLP(), Decoder())] == ["rows", "rows", "grid"]


def test_decoder_refuses_another_grid_and_impossible_widths() -> None:
    with pytest.raises(UserError, match=r"a decoder for \(2, 3\) cells"):
        small()(KEPT, Wanted(torch.zeros(2, 1, dtype=torch.int64), (3, 3), None))
    with pytest.raises(UserError, match=r"predictor: .*multiple of 4.*18 with 6 heads"):
        from_plain(Holder, {"predictor": {"kind": "decoder", "width": 18, "heads": 6}})
    assert from_plain(Holder, {"predictor": {"kind": "mlp", "hidden": 8}}).predictor == MLP(8)
