"""Where class tokens look and what blocks put out, against what the libraries themselves say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onestage.encoders import Vit
from onestage.layers.looks import looks_of
from onestage.teachers import load
from onestage.types import Also, Geometry, Piece, View
from published import NATIVE, picture, pixels_of, random_timm, saved

ARCHS = ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "eva02_base_patch14_224", "eva_giant_patch14_224"]


def plain_attention(attention: Any) -> list[Tensor]:
    """What an attention of timm's weighs values by, once it has run: its dropout is given it."""
    attention.fused_attn, seen = False, []
    attention.attn_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_class_tokens_look_is_timms(arch: str, relative: bool) -> None:
    if relative and not arch.startswith("vit"):
        return
    torch.manual_seed(0)
    places = "relative" if relative else "learned"
    encoder = Vit(arch=arch, size=64, patch=16, width=48, depth=2, heads=2, positions=places).build(frozenset()).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    seen = plain_attention(encoder.backbone.blocks[-1].attn)
    hidden = torch.tensor([[True, False] * 8, [False, True] * 8])
    view = View(torch.rand(2, 3, 64, 64), Geometry(torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool)))
    tokens = encoder({"image": Piece(view, hidden=hidden, hides=8, mode="drop", attention=True, layers=2)})
    torch.testing.assert_close(tokens.attention, seen[0].mean(dim=1)[:, 0, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(encoder.backbone.norm(tokens.layers[-1].rows), tokens.rows)
    torch.testing.assert_close(tokens.normed[-1].rows, tokens.rows)
    assert encoder({"image": Piece(view)}).attention is None


def test_the_class_tokens_look_is_torchs() -> None:
    torch.manual_seed(0)
    attention, rows = nn.MultiheadAttention(24, 3, batch_first=True), torch.randn(2, 5, 24)
    nn.init.normal_(attention.in_proj_bias)
    with looks_of(attention) as looks:
        _, weights = attention(rows, rows, rows, need_weights=True)
    torch.testing.assert_close(looks[0], weights[:, 0])


def test_open_clips_blocks_in_both_spaces(tmp_path: Path) -> None:
    teacher = load(f"open_clip:local-dir:{saved(tmp_path / 'model', NATIVE)}")
    pixels = pixels_of(picture(32)).float()
    network: Any = teacher.parts()[0].network
    raw = teacher.tokens(pixels, "raw", Also(2, attention=True))
    images = (pixels - teacher.mean) / teacher.std
    theirs = network.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
    for layer, rows, pooled in zip(
        raw.layers, theirs["image_intermediates"], theirs["image_intermediates_prefix"], strict=True
    ):
        torch.testing.assert_close(layer.rows, rows)
        torch.testing.assert_close(layer.pooled, pooled[:, 0])
    joint = teacher.tokens(pixels, "joint", Also(2))
    torch.testing.assert_close(joint.layers[-1].rows, joint.rows)
    torch.testing.assert_close(joint.layers[-1].pooled, joint.pooled)
    first = network.ln_post(raw.layers[0].rows) @ network.proj
    torch.testing.assert_close(joint.layers[0].rows, first)
    block = network.transformer.resblocks[-1]
    before = torch.cat([raw.layers[0].pooled.unsqueeze(1), raw.layers[0].rows], dim=1)
    normed = block.ln_1(before)
    _, weights = block.attn(normed, normed, normed, need_weights=True)
    torch.testing.assert_close(raw.attention, weights[:, 0, 1:])
    assert joint.attention is None


def test_timms_blocks(tmp_path: Path) -> None:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    teacher = load(f"timm:local-dir:{random_timm(tmp_path / 'vit', 'vit_tiny_patch16_224', options)}")
    trunk: Any = teacher.parts()[0].trunk
    seen = plain_attention(trunk.blocks[-1].attn)
    tokens = teacher.tokens(pixels_of(picture(32)).float(), "raw", Also(2, attention=True))
    torch.testing.assert_close(tokens.attention, seen[0].mean(dim=1)[:, 0, 1:])
    torch.testing.assert_close(trunk.norm(tokens.layers[-1].rows), tokens.rows)
    assert len(tokens.layers) == 2


def test_transformers_blocks_in_both_spaces(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    torch.manual_seed(0)
    config = transformers.CLIPConfig(vision_config=vision.to_dict(), text_config=sizes, projection_dim=24)
    model = transformers.CLIPModel(config).eval()
    from onestage.teachers.tower_hf import HfTower

    tower, images = HfTower(model, "class token", 32), torch.rand(2, 3, 32, 32)
    with torch.no_grad(), looks_of(tower.attention(), tower.query_key) as looks:
        tower.raw(images)
        model.set_attn_implementation("eager")
        theirs = model.vision_model(pixel_values=images, output_hidden_states=True, output_attentions=True)
        torch.testing.assert_close(looks[0], theirs.attentions[-1].mean(dim=1)[:, 0])
        lifted, projected = tower.lifted(theirs.hidden_states[-1]), tower.projected(images)
    torch.testing.assert_close(lifted.patches, projected.patches)
    torch.testing.assert_close(lifted.pooled, projected.pooled)
    assert len(tower.blocks()) == 2
