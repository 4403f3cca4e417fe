"""Layer-wise decay by the names of CLIP's towers."""

from __future__ import annotations

import pytest

from onestage.encoders import ClipImage, ClipText, EncoderSpec, Vit
from onestage.engine.groups import layer_scales

IMAGE = ClipImage(size=32, patch=16, width=16, depth=3, heads=2)
TEXT = ClipText(joint=8, width=16, depth=3, heads=2, context=6, vocabulary=20)
LAYERS = {
    "conv1": 0,
    "class_embedding": 0,
    "positional_embedding": 0,
    "token_embedding": 0,
    "ln_pre": 0,
    "transformer.resblocks.0": 1,
    "transformer.resblocks.1": 2,
    "transformer.resblocks.2": 3,
    "ln_post": 4,
    "ln_final": 4,
    "text_projection": 4,
}


@pytest.mark.parametrize("wanted", [IMAGE, TEXT], ids=["image", "text"])
def test_layers_of_clips_towers(wanted: EncoderSpec) -> None:
    names = [f"encoders.one.{name}" for name, _ in wanted.build(frozenset()).named_parameters()]
    scales = layer_scales("all", names, 0.5)
    for name in names:
        layer = next(layer for key, layer in LAYERS.items() if name.startswith(f"encoders.one.tower.{key}"))
        assert scales[name] == 0.5 ** (4 - layer), name
    assert set(scales.values()) == {0.5**power for power in range(5)}


def test_a_convolutional_stem_is_the_first_layer_and_no_tower() -> None:
    wanted = Vit(arch="vit_tiny_patch16_224", size=32, patch=8, width=32, depth=2, heads=2, stem="conv")
    names = [name for name, _ in wanted.build(frozenset()).named_parameters()]
    scales = layer_scales("all", names, 0.5)
    stem = [name for name in names if ".patch_embed." in f".{name}"]
    assert any(".patch_embed.blocks." in name for name in stem)
    assert {scales[name] for name in stem} == {0.5**3}
    assert scales["backbone.blocks.0.norm1.weight"] == 0.5**2
    assert scales["backbone.norm.weight"] == 1.0
