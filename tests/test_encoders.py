"""Encoders: dropping, replacing, pooling, initialisation, and the towers of open_clip."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from onestage.encoders import ClipImage, ClipText, Vit
from onestage.encoders.vit import VitEncoder
from onestage.encoders.words import Tokenizer, text_id
from onestage.ops import sincos_2d
from onestage.spec import UserError
from onestage.types import POOLED, Geometry, Piece, View

ARCHS = {
    "vit": {"arch": "vit_tiny_patch16_224"},
    "eva02": {"arch": "eva02_base_patch14_224"},
    "eva02_fused": {"arch": "eva02_tiny_patch14_224"},
}


def view(pixels: Tensor) -> View:
    b = pixels.shape[0]
    return View(pixels, Geometry(torch.zeros(b, 4), torch.zeros(b, dtype=torch.bool)))


def build(arch: str, modes: frozenset[str] = frozenset(), size: int = 64, **options: object) -> VitEncoder:
    torch.manual_seed(0)
    spec = Vit(**ARCHS[arch], size=size, patch=16, width=48, depth=3, heads=2, **options)
    encoder = spec.build(modes).eval()
    for parameter in encoder.parameters():  # positions and biases are zero at first, and would hide mistakes
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def hide(b: int, cells: int, count: int) -> Tensor:
    order = torch.rand(b, cells, generator=torch.Generator().manual_seed(1)).argsort(1)
    return order < count


@pytest.mark.parametrize("arch", ARCHS)
def test_dropping_equals_masking_the_same_tokens_in_attention(arch: str) -> None:
    encoder, pixels = build(arch), torch.rand(2, 3, 64, 64)
    hidden = hide(2, 16, 7)
    dropped = encoder({"image": Piece(view(pixels), hidden=hidden, hides=7, mode="drop")})
    allowed = torch.cat([torch.ones(2, 1, dtype=torch.bool), ~hidden], dim=1)
    mask = torch.zeros(2, 1, 17, 17).masked_fill(~allowed[:, None, None, :], -math.inf)
    masked = encoder.backbone.forward_features(encoder.normalise(pixels), attn_mask=mask)
    for sample in range(2):
        torch.testing.assert_close(dropped.rows[sample], masked[sample, 1:][~hidden[sample]], atol=1e-5, rtol=0)
    torch.testing.assert_close(dropped.pooled, masked[:, 0], atol=1e-5, rtol=0)
    assert dropped.place.cell[0].tolist() == (~hidden[0]).nonzero().flatten().tolist()


@pytest.mark.parametrize("arch", ARCHS)
def test_dropping_nothing_changes_nothing(arch: str) -> None:
    encoder, pixels = build(arch), torch.rand(2, 3, 64, 64)
    full = encoder({"image": Piece(view(pixels))})
    none = encoder({"image": Piece(view(pixels), hidden=torch.zeros(2, 16, dtype=torch.bool), mode="drop")})
    torch.testing.assert_close(full.rows, none.rows, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["drop", "replace"])
@pytest.mark.parametrize("arch", ARCHS)
def test_hidden_pixels_have_no_influence(arch: str, mode: str) -> None:
    encoder = build(arch, frozenset({mode}))
    hidden = hide(2, 16, 7)
    cells = hidden.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    pixels = torch.rand(2, 3, 64, 64)
    other = torch.where(cells, torch.rand(2, 3, 64, 64), pixels)
    first, second = (encoder({"image": Piece(view(p), hidden=hidden, hides=7, mode=mode)}) for p in (pixels, other))
    assert torch.equal(first.rows, second.rows)
    assert first.rows.shape[1] == (9 if mode == "drop" else 16)
    assert not torch.equal(encoder({"image": Piece(view(pixels))}).pooled, first.pooled)


def test_mask_token_exists_only_where_an_input_replaces_and_it_learns() -> None:
    assert not any("mask" in name for name, _ in build("vit").named_parameters())
    encoder = build("vit", frozenset({"replace"}))
    tokens = encoder({"image": Piece(view(torch.rand(1, 3, 64, 64)), hidden=hide(1, 16, 7), hides=7, mode="replace")})
    tokens.rows.sum().backward()
    assert encoder.mask is not None and encoder.mask.token.grad is not None and encoder.mask.token.grad.abs().sum() > 0


def test_slots_are_empty_again_after_a_failure() -> None:
    encoder = build("vit")
    with pytest.raises((RuntimeError, TypeCheckError)):
        encoder({"image": Piece(view(torch.rand(2, 3, 64, 64)), hidden=hide(3, 16, 7), hides=7, mode="drop")})
    assert encoder.keep.cells is None


def test_rotary_table_is_gathered_with_the_kept_cells() -> None:
    """With the rotary table and no absolute positions, moving a kept patch to another cell changes the output."""
    encoder, pixels = build("eva02"), torch.rand(1, 3, 64, 64)
    encoder.backbone.pos_embed = None
    swapped = pixels.clone()
    swapped[:, :, :16, :16], swapped[:, :, 48:, 48:] = pixels[:, :, 48:, 48:], pixels[:, :, :16, :16]
    hidden = torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, 5] = True
    first, second = (
        encoder({"image": Piece(view(p), hidden=hidden, hides=1, mode="drop")}).pooled for p in (pixels, swapped)
    )
    assert (first - second).abs().max() > 1e-3


def test_mean_pooling_is_the_mean_of_normed_rows() -> None:
    encoder = build("vit", pool="mean")
    tokens = encoder({"image": Piece(view(torch.rand(2, 3, 64, 64)))})
    torch.testing.assert_close(tokens.pooled, tokens.rows.mean(1))


def test_convolutional_stem_keeps_the_grid_and_its_order() -> None:
    encoder = Vit(**ARCHS["vit"], size=64, patch=16, width=48, depth=1, heads=2, stem="conv").build(frozenset()).eval()
    pixels = torch.zeros(1, 3, 64, 64)
    base = encoder.backbone.patch_embed(pixels)
    pixels[:, :, 16:32, 48:64] = 1
    changed = (encoder.backbone.patch_embed(pixels) - base).abs().sum(-1).view(4, 4)
    assert changed.argmax() == 1 * 4 + 3


def test_fixed_positions_are_mae_s_and_do_not_train() -> None:
    encoder = Vit(**ARCHS["vit"], size=64, patch=16, width=48, depth=1, heads=2, positions="sincos", init="mae").build(
        frozenset()
    )
    positions = encoder.backbone.pos_embed
    assert not positions.requires_grad
    assert torch.equal(positions[0, 0], torch.zeros(48))
    column, omega = 3, 10000 ** -(5 / 12)
    assert positions[0, 1 + 2 * 4 + column, 5] == pytest.approx(math.sin(column * omega), abs=1e-6)
    assert positions[0, 1 + 2 * 4 + column, 24 + 5] == pytest.approx(math.sin(2 * omega), abs=1e-6)
    torch.testing.assert_close(positions[0, 1:], sincos_2d(48, (4, 4)))


@torch.no_grad()
def test_initialisations() -> None:
    torch.manual_seed(0)
    options = {"size": 64, "patch": 16, "width": 96, "depth": 4, "heads": 2}
    mae = Vit(**ARCHS["vit"], **options, init="mae").build(frozenset()).backbone
    bound = math.sqrt(6 / (96 + 288))
    assert mae.blocks[0].attn.qkv.weight.abs().max() <= bound
    assert mae.blocks[0].attn.qkv.weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    beit = Vit(**ARCHS["vit"], **options, init="beit").build(frozenset()).backbone
    for block in range(4):
        weight = beit.blocks[block].mlp.fc2.weight
        assert weight.abs().max() <= 0.02 / math.sqrt(2 * (block + 1)) + 1e-8
        assert weight.std() == pytest.approx(0.54 * 0.02 / math.sqrt(2 * (block + 1)), rel=0.05)
    eva = Vit(**ARCHS["eva02"], **options, init="eva02").build(frozenset()).backbone
    gain = math.sqrt(math.log(2 * 4))
    hidden = eva.blocks[0].mlp.fc2.weight.shape[1]
    xavier = math.sqrt(2 / (96 + hidden))
    assert eva.blocks[0].mlp.fc2.weight.std() == pytest.approx(gain * xavier, rel=0.05)
    assert eva.blocks[0].attn.q_proj.weight.std() == pytest.approx(math.sqrt(2 / 192), rel=0.05)
    assert eva.blocks[0].attn.v_proj.weight.std() == pytest.approx(gain * math.sqrt(2 / 192), rel=0.05)
    tiny = Vit(**ARCHS["eva02_fused"], **options, init="eva02").build(frozenset()).backbone
    assert tiny.blocks[0].attn.proj.weight.std() == pytest.approx(math.sqrt(2 / 192), rel=0.05)  # no norm inside


def test_a_model_timm_cannot_build_is_explained() -> None:
    with pytest.raises(UserError, match="timm has no model 'vit_enormous'"):
        Vit(arch="vit_enormous").build(frozenset())
    with pytest.raises(UserError, match="not a VisionTransformer"):
        Vit(arch="resnet10t").build(frozenset())


def test_clip_image_tower_drops_like_attention_masks_and_equals_open_clip() -> None:
    torch.manual_seed(0)
    encoder = ClipImage(size=64, patch=16, width=48, depth=2, heads=2).build(frozenset()).eval()
    pixels, hidden = torch.rand(2, 3, 64, 64), hide(2, 16, 7)
    full = encoder({"image": Piece(view(pixels))})
    pooled, rows = encoder.tower(encoder.normalise(pixels))
    assert torch.equal(full.pooled, pooled) and torch.equal(full.rows, rows)
    cells = hidden.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    other = torch.where(cells, torch.rand(2, 3, 64, 64), pixels)
    one, two = (encoder({"image": Piece(view(p), hidden=hidden, hides=7, mode="drop")}) for p in (pixels, other))
    assert torch.equal(one.rows, two.rows) and one.rows.shape == (2, 9, 48)
    with pytest.raises(UserError, match="no place for mask tokens"):
        ClipImage().build(frozenset({"replace"}))


def test_text_tower_reads_up_to_the_end_token() -> None:
    torch.manual_seed(0)
    encoder = ClipText(joint=24, width=32, depth=2, heads=2, context=16).build(frozenset()).eval()
    tokenizer = Tokenizer(16)
    words = tokenizer.words(["a seven", "a red seven", "a seven"])
    tokens = encoder({"text": Piece(None, words=words)})
    assert tokens.pooled.shape == (3, 24) and tokens.place.cell.flatten().tolist() == [POOLED] * 3
    torch.testing.assert_close(tokens.pooled[0], tokens.pooled[2])
    assert (tokens.pooled[0] - tokens.pooled[1]).abs().max() > 1e-3
    assert words.text_id[0] == words.text_id[2] != words.text_id[1]
    assert 0 <= text_id("a seven") < 2**63
