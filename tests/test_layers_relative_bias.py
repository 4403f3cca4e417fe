"""Relative position bias: timm's own for BEiT, each pair by hand, and a ViT that has nothing else to tell places by."""

from __future__ import annotations

import math

import pytest
import torch
from timm.layers.pos_embed_rel import gen_relative_position_index
from timm.models.beit import RelativePositionBias
from torch import Tensor

from onestage.encoders import Vit
from onestage.encoders.vit import VitEncoder
from onestage.layers.relative_bias import RelativeBias, offsets
from onestage.spec import UserError
from onestage.types import Geometry, Piece, View


def filled(grid: tuple[int, int], heads: int) -> RelativeBias:
    bias = RelativeBias(grid, heads)
    torch.nn.init.normal_(bias.table, generator=torch.Generator().manual_seed(0))
    return bias


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (1, 1)])
def test_the_bias_is_timms(grid: tuple[int, int]) -> None:
    mine, theirs = filled(grid, 4), RelativePositionBias(grid, 4)
    with torch.no_grad():
        theirs.relative_position_bias_table.copy_(mine.table)
    torch.testing.assert_close(mine(None)[0], theirs(), rtol=0, atol=0)
    assert torch.equal(offsets(grid)[1:, 1:], gen_relative_position_index(grid))


def test_every_pair_of_cells_at_one_offset_shares_its_number() -> None:
    bias, columns = filled((3, 4), 2)(None)[0, 1].detach().double(), 4
    seen: dict[tuple[int, int], float] = {}
    for query in range(12):
        for key in range(12):
            offset = (query // columns - key // columns, query % columns - key % columns)
            assert seen.setdefault(offset, float(bias[query + 1, key + 1])) == float(bias[query + 1, key + 1])
    assert len(set(seen.values())) == len(seen) == 5 * 7
    assert bias[0, 1:].unique().numel() == bias[1:, 0].unique().numel() == 1
    assert bias[0, 0] != bias[0, 1] != bias[1, 0]


def vit(modes: frozenset[str] = frozenset()) -> VitEncoder:
    torch.manual_seed(0)
    model = Vit(arch="vit_tiny_patch16_224", size=48, patch=16, width=32, depth=2, heads=2, positions="relative")
    encoder = model.build(modes).eval()
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def view(pixels: Tensor) -> View:
    b = pixels.shape[0]
    return View(pixels, Geometry(torch.zeros(b, 4), torch.zeros(b, dtype=torch.bool)))


def test_dropping_equals_masking_the_same_tokens_in_attention() -> None:
    encoder, pixels = vit(frozenset({"drop"})), torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[0, [0, 4, 5]], hidden[1, [2, 3, 8]] = True, True
    dropped = encoder({"image": Piece(view(pixels), hidden=hidden, hides=3, mode="drop")})
    assert encoder.rel_pos is not None and encoder.backbone.pos_embed is None
    forbidden = torch.cat([torch.zeros(2, 1, dtype=torch.bool), hidden], dim=1)[:, None, None, :]
    mask = encoder.rel_pos(None).expand(2, -1, -1, -1).masked_fill(forbidden, -math.inf)
    rows = encoder.backbone.forward_features(encoder.normalise(pixels), attn_mask=mask)
    for sample in range(2):
        torch.testing.assert_close(dropped.rows[sample], rows[sample, 1:][~hidden[sample]], atol=1e-5, rtol=0)


def test_places_are_told_apart_by_the_bias_alone() -> None:
    """Two cells that change places, on a picture that is the same otherwise, change rows only through the table."""
    encoder, pixels = vit(), torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    swapped = pixels.clone()
    swapped[..., :16, :16], swapped[..., 32:, 32:] = pixels[..., 32:, 32:], pixels[..., :16, :16]
    first, second = (encoder({"image": Piece(view(p))}).pooled for p in (pixels, swapped))
    assert not torch.allclose(first, second, atol=1e-3)
    torch.nn.init.zeros_(encoder.rel_pos.table)
    first, second = (encoder({"image": Piece(view(p))}).pooled for p in (pixels, swapped))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_the_table_learns_in_bf16_too() -> None:
    encoder = vit()
    with torch.autocast("cpu", torch.bfloat16):
        encoder({"image": Piece(view(torch.rand(2, 3, 48, 48)))}).rows.float().square().mean().backward()
    assert encoder.rel_pos.table.grad is not None and encoder.rel_pos.table.grad.abs().sum() > 0


def test_rotary_models_keep_their_own_positions() -> None:
    with pytest.raises(UserError, match="positions: relative is for vit_"):
        Vit(arch="eva02_tiny_patch14_224", size=56, positions="relative").build(frozenset())
