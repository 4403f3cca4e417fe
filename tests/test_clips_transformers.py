"""VideoMAE against transformers' own: the same weights give the same guesses and the same loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from onestage.likelihood import Gaussian
from onestage.ops import sines
from onestage.predictors import Decoder
from onestage.targets import Pixels
from onestage.types import Wanted
from onestage.views import Tube
from test_clips import FRAMES, SIDE, STUDENT, look, seen


def test_video_mae_is_transformers() -> None:
    """Tokens, guesses, targets and loss of transformers' VideoMAE with the same weights; it knows no bias before the
    decoder, and 16 frames are 8 tubelets."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    torch.manual_seed(0)
    theirs = VideoMAEForPreTraining(
        VideoMAEConfig(
            image_size=SIDE,
            patch_size=8,
            num_frames=FRAMES,
            tubelet_size=2,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            decoder_hidden_size=24,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=96,
            layer_norm_eps=1e-6,
            use_mean_pooling=False,
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    student = dataclasses.replace(STUDENT, normalise="imagenet").build(frozenset({"drop"})).eval()
    decoder = Decoder(width=24, depth=2, heads=2, positions="sines", pooled="left out").build(32, 384, (4, 2)).eval()
    fill(student.backbone, decoder, theirs)
    clips = torch.rand(2, 3, FRAMES * SIDE, SIDE)
    hidden = torch.from_numpy(np.stack([Tube(ratio=0.5).draw(np.random.default_rng(s), (4, 2)) for s in range(2)]))
    normed = student.normalise(clips).reshape(2, 3, FRAMES, SIDE, SIDE).transpose(1, 2)
    with torch.no_grad():
        expected = theirs(normed, bool_masked_pos=hidden)
        tokens = look(student, clips, hidden)
        wanted = Wanted(hidden.nonzero()[:, 1].view(2, 4), (4, 2), None)
        guess = decoder(tokens, wanted)
        target = Pixels(rows="hidden", norm="channel", normalise="none").build(8, 2)(seen(clips), wanted, None)
        loss = Gaussian(form="squared").build()(guess, target)
    torch.testing.assert_close(guess, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=1e-4)


def fill(backbone: torch.nn.Module, decoder: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Their weights, as timm and we name them."""
    given = theirs.state_dict()
    kernel = given["videomae.embeddings.patch_embeddings.projection.weight"]
    ours = {"patch_embed.proj.weight": kernel.flatten(1, 2)}
    ours["patch_embed.proj.bias"] = given["videomae.embeddings.patch_embeddings.projection.bias"]
    ours |= {f"norm.{kind}": given[f"videomae.layernorm.{kind}"] for kind in ("weight", "bias")}
    ours |= blocks(given, "videomae.encoder.layer", "blocks")
    ours["pos_embed"] = sines(32, 8)[None]
    backbone.load_state_dict(ours)
    heads = {
        f"{name}.{kind}": given[f"decoder.{name}.{kind}"] for name in ("norm", "head") for kind in ("weight", "bias")
    }
    heads |= blocks(given, "decoder.decoder_layers", "blocks")
    heads |= {"embed.weight": given["encoder_to_decoder.weight"], "embed.bias": torch.zeros(24)}
    decoder.load_state_dict(heads | {"mask": given["mask_token"].flatten()})
    theirs.decoder.norm.eps = 1e-6


def blocks(given: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    for block in range(2):
        at, to = f"{theirs}.{block}", f"{ours}.{block}"
        for name, other in names.items():
            found |= {f"{to}.{name}.{kind}": given[f"{at}.{other}.{kind}"] for kind in ("weight", "bias")}
        parts = [given[f"{at}.attention.attention.{part}.weight"] for part in ("query", "key", "value")]
        query, value = (given[f"{at}.attention.attention.{part}.bias"] for part in ("query", "value"))
        found[f"{to}.attn.qkv.weight"] = torch.cat(parts)
        found[f"{to}.attn.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return found
