"""Swin with mask tokens, against timm's own forward pass, and SimMIM's recipes with it at full width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from full_width import steps
from onestage import recipes
from onestage.encoders import Swin
from onestage.encoders.swin import SwinEncoder
from onestage.spec import UserError
from onestage.types import Geometry, Piece, View

ARCHS = {"swin": "swin_tiny_patch4_window7_224", "swinv2": "swinv2_tiny_window8_256"}


def view(pixels: Tensor) -> View:
    b = pixels.shape[0]
    return View(pixels, Geometry(torch.zeros(b, 4), torch.zeros(b, dtype=torch.bool)))


def build(arch: str, *modes: str) -> SwinEncoder:
    torch.manual_seed(0)
    small = Swin(arch=ARCHS[arch], size=96, window=3, width=16, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4))
    encoder = small.build(frozenset(modes)).eval()
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return encoder


HIDDEN = torch.tensor([[True, False, False, False, True, False, False, False, True], [False] * 8 + [True]])


@pytest.mark.parametrize("arch", ARCHS)
def test_rows_are_timms_features(arch: str) -> None:
    encoder, pixels = build(arch), torch.rand(2, 3, 96, 96)
    tokens = encoder({"image": Piece(view(pixels))})
    features = encoder.backbone.forward_features(encoder.normalise(pixels))
    assert (encoder.grid, encoder.width, features.shape) == ((3, 3), 128, (2, 3, 3, 128))
    torch.testing.assert_close(tokens.rows, features.reshape(2, 9, 128))
    torch.testing.assert_close(tokens.pooled, features.mean(dim=(1, 2)))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_hidden_cell_is_64_mask_tokens(arch: str) -> None:
    """By loops over the patches of the map that timm's patch embedding gives, before its first stage."""
    encoder, pixels = build(arch, "replace"), torch.rand(2, 3, 96, 96)
    seen: list[Tensor] = []
    encoder.backbone.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    encoder({"image": Piece(view(pixels))})
    masked = encoder({"image": Piece(view(pixels), hidden=HIDDEN, hides=3, mode="replace")})
    assert encoder.mask is not None and masked.rows.shape == (2, 9, 128)
    for sample in range(2):
        for y in range(24):
            for x in range(24):
                is_hidden = bool(HIDDEN[sample, y // 8 * 3 + x // 8])
                expected = encoder.mask.token if is_hidden else seen[0][sample, y, x]
                assert torch.equal(seen[1][sample, y, x], expected)


@pytest.mark.parametrize("arch", ARCHS)
def test_hidden_pixels_of_a_swin_have_no_influence(arch: str) -> None:
    encoder, pixels = build(arch, "replace"), torch.rand(2, 3, 96, 96)
    inside = HIDDEN.view(2, 1, 3, 3).repeat_interleave(32, 2).repeat_interleave(32, 3)
    other = torch.where(inside, torch.rand(2, 3, 96, 96), pixels)
    first, second = (
        encoder({"image": Piece(view(each), hidden=HIDDEN, hides=3, mode="replace")}) for each in (pixels, other)
    )
    assert torch.equal(first.rows, second.rows)
    assert not torch.equal(encoder({"image": Piece(view(pixels))}).rows, first.rows)


def test_what_a_swin_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match="use mode: replace, or a vit encoder"):
        Swin().build(frozenset({"drop"}))
    with pytest.raises(UserError, match="is no Swin of timm"):
        Swin(arch="vit_base_patch16_224").build(frozenset())
    with pytest.raises(UserError, match="do not fill images of 100 pixels"):
        Swin(arch=ARCHS["swin"], size=100, window=3).build(frozenset())


SHEETS: dict[str, tuple[float, float, float, float, int]] = {
    "simmim_swin_b": (8e-4, 100, 4e-5, 0.0, 6),
    "simmim_swinv2_b": (4e-4, 800, 4e-5, 0.1, 12),
}
"""Learning rate, epochs, its end, drop path, window."""


@pytest.mark.parametrize("name", SHEETS)
def test_simmims_numbers_with_a_swin(name: str) -> None:
    recipe, (lr, epochs, end, drop_path, window) = recipes.recipe(name), SHEETS[name]
    model, (group,) = recipe.models["student"], recipe.optimiser.groups.values()
    assert isinstance(model, Swin)
    assert (recipe.batch, recipe.epochs, group.lr, group.clip) == (2048, epochs, lr, 5.0)
    assert (model.size, model.window, model.drop_path) == (192, window, drop_path)
    assert recipe.schedule.warmup_steps(8000) == round(8000 * 10 / epochs)
    assert recipe.schedule.at(0, 8000, lr) == pytest.approx(2e-6)
    assert recipe.schedule.at(8000, 8000, lr) == pytest.approx(end)
    (part,) = (part for asked in recipe.method.inputs.values() for part in asked.parts.values())
    assert part.hide is not None and part.hide.count((6, 6)) == 22
    with torch.device("meta"):
        encoder: Any = model.build(frozenset())
    assert (encoder.grid, encoder.width) == ((6, 6), 1024)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(86.9e6, rel=0.02)


@pytest.mark.parametrize("name", SHEETS)
def test_two_steps_of_a_swin_at_full_width(name: str) -> None:
    done, still = steps(recipes.recipe(name))
    assert done[0].losses.total.item() == pytest.approx(1.0, abs=0.5)
    assert still == []
