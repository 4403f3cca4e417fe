"""Paper-size recipes of contrastive pre-training with texts. Each docstring is a lab note.

A number that the paper does not state is marked `assumed` in the note. Words are CLIP's byte pairs (49,408) in all of
them: the vocabularies of the papers are files of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from onestage.encoders import ClipImage, ClipText, EncoderSpec, Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.contrastive import CLIP, FLIP, LIT, SIGLIP
from onestage.pretraining import Recipe

VIRTUAL = 1_281_167
"""Images of FLIP's "virtual" epochs: those of ImageNet-1K."""


def clip_b16() -> Recipe:
    """CLIP with ViT-B/16 (arXiv:2103.00020, tables 18 and 19).

    Data: 400 M pairs of its own (WIT). Command: onestage pretrain clip_b16 --data PAIRS --out runs/clip_b16
    Expected: 68.3 % zero-shot on ImageNet-1K. Assumed: nothing but words (its vocabulary is ours).
    """
    return _clip("clip_b16", ClipImage(activation="quick_gelu"), _clip_text(512, 512, 8, "quick_gelu"), 5e-4)


def clip_l14() -> Recipe:
    """CLIP with ViT-L/14 (arXiv:2103.00020, tables 18 and 19).

    Data and command: as clip_b16. Expected: 75.3 % zero-shot on ImageNet-1K (74.0 % in table 1 of
    arXiv:2405.19009).
    """
    image = ClipImage(patch=14, width=1024, depth=24, heads=16, activation="quick_gelu")
    return _clip("clip_l14", image, _clip_text(768, 768, 12, "quick_gelu"), 4e-4)


def siglip_b16() -> Recipe:
    """SigLIP with ViT-B/16 (arXiv:2303.15343; big_vision's code).

    Data: WebLI, 9 G pairs seen at batch 32,768. Command: onestage pretrain siglip_b16 --data PAIRS --out runs/siglip
    Expected: 76.7 % zero-shot on ImageNet-1K at 224 pixels. Assumed: learning rate, decay, betas, clipping and warm-up
    (none is in the code), AdamW in place of its low-precision Adafactor, words.
    """
    image = Vit(arch="vit_base_patch16_siglip_224", size=224, pool="map", normalise="half")
    text = ClipText(joint=768, width=768, depth=12, heads=12, context=64, attention="all", pool="last")
    return _siglip("siglip_b16", image, text)


def siglip_l16() -> Recipe:
    """SigLIP with ViT-L/16 (arXiv:2303.15343).

    Data, command and what is assumed: as siglip_b16. Expected: not known to us.
    """
    image = Vit(arch="vit_large_patch16_siglip_256", size=256, pool="map", normalise="half")
    text = ClipText(joint=1024, width=1024, depth=24, heads=16, context=64, attention="all", pool="last")
    return _siglip("siglip_l16", image, text)


def flip_b16() -> Recipe:
    """FLIP with ViT-B/16, half of the cells hidden (arXiv:2212.00794; its code).

    Data: LAION-400M, 12.8 G pairs seen. Command: onestage pretrain flip_b16 --data PAIRS --out runs/flip_b16, and
    then its unmasked tuning, 128 M pairs: onestage pretrain flip_b16_unmasked --data PAIRS --init runs/flip_b16
    Expected: 68.0 % zero-shot on ImageNet-1K. Assumed: words (BERT's in the code).
    """
    image = Vit(arch="vit_base_patch16_224", size=224, positions="sincos", init="mae", pool="all")
    return _flip("flip_b16", image, _clip_text(512, 512, 8))


def flip_l16() -> Recipe:
    """FLIP with ViT-L/16, half of the cells hidden (arXiv:2212.00794).

    Data, command and what is assumed: as flip_b16. Expected: 74.3 % zero-shot on ImageNet-1K.
    """
    image = Vit(arch="vit_large_patch16_224", size=224, positions="sincos", init="mae", pool="all")
    return _flip("flip_l16", image, _clip_text(768, 768, 12))


def flip_b16_unmasked() -> Recipe:
    """The unmasked tuning that ends FLIP (arXiv:2212.00794, sec. 3): nothing is hidden, at a hundredth of the rate.

    Data: as flip_b16. Command: onestage pretrain flip_b16_unmasked --data PAIRS --init runs/flip_b16
    Expected: 68.0 % zero-shot on ImageNet-1K. Assumed: that flip_b16's figure is after it.
    """
    pretrained = flip_b16()
    row = dataclasses.replace(CLIP, views=FLIP.views)
    return dataclasses.replace(
        pretrained,
        name="flip_b16_unmasked",
        method=row,
        steps=100 * VIRTUAL // 65536,
        optimiser=_flips(4e-8),
        schedule=Cosine(warmup=20 / 100),
    )


def lit_b16() -> Recipe:
    """LiT with ViT-B/16 (arXiv:2111.07991; its published model B16B_2 and big_vision's code).

    Data: YFCC100M and CC12M. Teacher: the image tower, ViT-B/16 of AugReg trained on ImageNet-21K, from the hub's cache
    or the hub where --teacher names no other. Command: onestage pretrain lit_b16 --data PAIRS --out runs/lit_b16
    Expected: 73.9 % zero-shot on ImageNet-1K. From the code's run on COCO: learning rate, decay, warm-up, clipping, 16
    words. Assumed: batch, steps, views; words, and a text tower of BERT's size that is CLIP's and starts as drawn.
    """
    return _lit("lit_b16", "base", ClipText(joint=768, width=768, depth=12, heads=12, context=16))


def lit_l16() -> Recipe:
    """LiT with ViT-L/16 (arXiv:2111.07991; its published model L16L).

    Data, command and what is assumed: as lit_b16. Teacher: ViT-L/16 of AugReg. Expected: 75.7 % zero-shot on
    ImageNet-1K.
    """
    return _lit("lit_l16", "large", ClipText(joint=1024, width=1024, depth=24, heads=16, context=16))


CONTRASTIVE_ROWS: tuple[Callable[[], Recipe], ...] = (
    clip_b16,
    clip_l14,
    siglip_b16,
    siglip_l16,
    flip_b16,
    flip_l16,
    flip_b16_unmasked,
    lit_b16,
    lit_l16,
)


def _clip_text(joint: int, width: int, heads: int, activation: Literal["gelu", "quick_gelu"] = "gelu") -> ClipText:
    return ClipText(joint=joint, width=width, depth=12, heads=heads, activation=activation)


def _clip(name: str, image: EncoderSpec, text: ClipText, lr: float) -> Recipe:
    group = Group(lr=lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    return Recipe(
        name=name,
        method=CLIP,
        models={"student": image, "text": text},
        batch=32768,
        epochs=32,
        optimiser=Optimiser(groups={"all": group}, reference_batch=32768),
        schedule=Cosine(warmup=2000 * 32768 / (32 * 400e6)),
    )


def _siglip(name: str, image: EncoderSpec, text: ClipText) -> Recipe:
    group = Group(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-4, clip=1.0)
    steps = round(9e9 / 32768)
    return Recipe(
        name=name,
        method=SIGLIP,
        models={"student": image, "text": text},
        batch=32768,
        steps=steps,
        optimiser=Optimiser(groups={"all": group}, reference_batch=32768),
        schedule=Cosine(warmup=20_000 / steps),
    )


def _lit(name: str, size: str, text: ClipText) -> Recipe:
    group = Group(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, clip=1.0)
    return Recipe(
        name=name,
        method=LIT,
        models={"text": text},
        batch=16384,
        steps=60_000,
        optimiser=Optimiser(groups={"all": group}, reference_batch=16384),
        schedule=Cosine(warmup=0.03),
        teachers={"teacher": f"timm:vit_{size}_patch16_224.augreg_in21k"},
    )


def _flip(name: str, image: EncoderSpec, text: ClipText) -> Recipe:
    return Recipe(
        name=name,
        method=FLIP,
        models={"student": image, "text": text},
        batch=65536,
        steps=10_000 * VIRTUAL // 65536,
        optimiser=_flips(4e-6),
        schedule=Cosine(warmup=40 / 10_000),
    )


def _flips(per_256: float) -> Optimiser:
    """The code's learning rate for each 256 pairs, at the batch in use."""
    bare = ("*.pos_embed", "*.cls_token", "*.positional_embedding")
    group = Group(lr=per_256 * 256, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.2, no_decay=bare)
    return Optimiser(groups={"all": group}, reference_batch=65536)
