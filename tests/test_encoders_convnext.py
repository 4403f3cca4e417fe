"""ConvNeXt with mask tokens, against timm's own forward pass, and as a student that is trained and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from onestage import pretraining
from onestage.encoders import ConvNext
from onestage.encoders.convnext import ConvNextEncoder
from onestage.objective.compose import hiding
from onestage.spec import UserError
from onestage.teachers import load
from onestage.types import Piece
from onestage.views import Units
from small import ROWS, small
from test_encoders_swin import HIDDEN, view

ARCHS = ("convnext_atto", "convnextv2_atto", "convnext_base")
SMALL = {"size": 96, "widths": (8, 8, 16, 24), "depths": (1, 1, 2, 1)}


def build(arch: str, *modes: str) -> ConvNextEncoder:
    torch.manual_seed(0)
    encoder = ConvNext(arch=arch, **SMALL).build(frozenset(modes)).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_rows_are_timms_normed_features(arch: str) -> None:
    encoder, pixels = build(arch), torch.rand(2, 3, 96, 96)
    tokens = encoder({"image": Piece(view(pixels))})
    features = encoder.backbone.forward_features(encoder.normalise(pixels))
    assert (encoder.grid, encoder.width, features.shape) == ((3, 3), 24, (2, 24, 3, 3))
    torch.testing.assert_close(tokens.pooled, encoder.backbone.forward_head(features, pre_logits=True))
    for cell in range(9):
        alone = encoder.backbone.forward_head(features[:, :, cell // 3, cell % 3, None, None], pre_logits=True)
        torch.testing.assert_close(tokens.rows[:, cell], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_a_hidden_cell_of_a_convnext_is_64_mask_tokens(arch: str) -> None:
    encoder, pixels = build(arch, "replace"), torch.rand(2, 3, 96, 96)
    seen: list[Tensor] = []
    encoder.backbone.stages[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    whole = encoder({"image": Piece(view(pixels))})
    masked = encoder({"image": Piece(view(pixels), hidden=HIDDEN, hides=3, mode="replace")})
    assert encoder.mask is not None and not torch.equal(whole.rows, masked.rows)
    for sample in range(2):
        for y in range(24):
            for x in range(24):
                is_hidden = bool(HIDDEN[sample, y // 8 * 3 + x // 8])
                expected = encoder.mask.token if is_hidden else seen[0][sample, :, y, x]
                assert torch.equal(seen[1][sample, :, y, x], expected)
    inside = HIDDEN.view(2, 1, 3, 3).repeat_interleave(32, 2).repeat_interleave(32, 3)
    other = torch.where(inside, torch.rand(2, 3, 96, 96), pixels)
    again = encoder({"image": Piece(view(other), hidden=HIDDEN, hides=3, mode="replace")})
    assert torch.equal(again.rows, masked.rows), "hidden pixels have no influence"


def test_simmim_trains_it_and_the_run_is_a_model(tmp_path: Path) -> None:
    student = ConvNext(arch="convnextv2_atto", **SMALL | {"size": 64})
    row = hiding(ROWS["simmim"], Units(ratio=0.6, side=1))
    recipe = small("simmim", steps=2, method=row, models={"student": student})
    pretraining.start(recipe, tmp_path / "run", [])
    model = load(str(tmp_path / "run"))
    assert model.tokens(torch.rand(2, 3, 64, 64), "raw").rows.shape == (2, 4, 24) and model.size == 64


def test_what_a_convnext_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match="use mode: replace, or a vit encoder"):
        ConvNext().build(frozenset({"drop"}))
    with pytest.raises(UserError, match="is no ConvNeXt of timm"):
        ConvNext(arch="vit_base_patch16_224").build(frozenset())
    with pytest.raises(UserError, match="do not fill images of 100 pixels"):
        ConvNext(arch="convnext_atto", size=100).build(frozenset())
    for arch in ("convnext_atto_ols", "convnext_tiny_hnf"):
        with pytest.raises(UserError, match="without _ols and _hnf"):
            ConvNext(arch=arch, depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)).build(frozenset())
