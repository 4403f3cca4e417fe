"""Paper-size recipes of the siamese rows, on ViT-B/16.

MoCo v3 (arXiv:2104.02057) is published for it. The others are published for ResNet-50; here they have its encoder, BYOL
and Barlow Twins their own LARS, the others its optimiser, and all of them heads, views and averages of their own. What
they score so is not published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from onestage.encoders import Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.siamese import BARLOW_TWINS, BYOL, DENSECL, MOCO_V2, MOCO_V3
from onestage.objective import Method
from onestage.pretraining import Recipe

FOREVER = 10**12
"""Steps; more than any run has."""
VECTORS = ("*.bias", "*norm*.weight")
"""Biases, and what norms multiply by."""


def moco_v2_b16() -> Recipe:
    """MoCo v2 on ViT-B/16 (arXiv:2003.04297; published for ResNet-50).

    Data: ImageNet-1K.
    Command: onestage pretrain moco_v2_b16 --data IMAGENET/train --out runs/moco_v2
    Expected: nothing is published for it (ResNet-50: 67.7 % linear after 200 epochs).
    Assumed: encoder, optimiser and length, which are MoCo v3's, and a momentum of 0.999 at its batch of 4096.
    """
    return _row("moco_v2_b16", MOCO_V2)


def densecl_b16() -> Recipe:
    """DenseCL on ViT-B/16 (arXiv:2011.09157; published for ResNet-50).

    Data: ImageNet-1K.
    Command: onestage pretrain densecl_b16 --data IMAGENET/train --out runs/densecl
    Expected: nothing is published for it. Assumed: as for moco_v2_b16, at a batch
    of 1024, since each of 196 cells an image is compared with the queue.
    """
    return _row("densecl_b16", DENSECL, batch=1024)


def moco_v3_b16() -> Recipe:
    """MoCo v3 with ViT-B/16 (arXiv:2104.02057, its released code).

    Data: ImageNet-1K.
    Command: onestage pretrain moco_v3_b16 --data IMAGENET/train --out runs/moco_v3
    Expected: 76.7 % linear, 83.2 % top-1 after fine-tuning. Assumed: the class token's first values, N(0, 0.02) where
    the code has N(0, 1e-6).
    """
    return _row("moco_v3_b16", MOCO_V3)


def byol_b16() -> Recipe:
    """BYOL on ViT-B/16 (arXiv:2006.07733; published for ResNets).

    Data: ImageNet-1K.
    Command: onestage pretrain byol_b16 --data IMAGENET/train --out runs/byol
    Expected: nothing is published for it (ResNet-50: 74.3 % linear after 1000 epochs).
    Its LARS, length and momentum are BYOL's for 1000 epochs. Assumed: the encoder, which is MoCo v3's with its stem.
    """
    body = Group(kind="lars", lr=0.2 * 4096 / 256, weight_decay=1.5e-6)
    return _lars("byol_b16", BYOL, {"all": body}, batch=4096, end=0.0)


def barlow_twins_b16() -> Recipe:
    """Barlow Twins on ViT-B/16 (arXiv:2103.03230; published for ResNet-50).

    Data: ImageNet-1K.
    Command: onestage pretrain barlow_twins_b16 --data IMAGENET/train --out runs/barlow_twins
    Expected: nothing is published for it (ResNet-50: 73.2 % linear after 1000 epochs).
    Its LARS and length are its own; biases and norms have a learning rate of their own, which was found with the
    released code's gradient, divided by the number of processes: here it is exact. Assumed: the encoder, which is
    MoCo v3's with its stem, and one end of both rates, a thousandth of the first.
    """
    body = Group(kind="lars", lr=0.2 * 2048 / 256, weight_decay=1e-6)
    vectors = dataclasses.replace(body, lr=0.0048 * 2048 / 256, match=VECTORS)
    return _lars("barlow_twins_b16", BARLOW_TWINS, {"vectors": vectors, "all": body}, batch=2048, end=1e-3 * body.lr)


SIAMESE_ROWS: tuple[Callable[[], Recipe], ...] = (
    moco_v2_b16,
    densecl_b16,
    moco_v3_b16,
    byol_b16,
    barlow_twins_b16,
)


def _row(name: str, method: Method, batch: int = 4096) -> Recipe:
    """MoCo v3's encoder and optimiser: fixed positions, a patch embedding that stays random, decay of every value."""
    body = Group(lr=2.4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, decay_vectors="always")
    stem = Group(lr=2.4e-3, match=("encoders.student.backbone.patch_embed.*",), freeze_until=FOREVER)
    return Recipe(
        name=name,
        method=method,
        models={"student": Vit(arch="vit_base_patch16_224", size=224, positions="sincos", init="mae")},
        batch=batch,
        epochs=300.0,
        optimiser=Optimiser(groups={"stem": stem, "all": body}, reference_batch=4096, rule="linear"),
        schedule=Cosine(warmup=40 / 300),
    )


def _lars(name: str, method: Method, groups: dict[str, Group], batch: int, end: float) -> Recipe:
    """Momentum of 0.9, ten epochs of warm-up and a thousand in all, on MoCo v3's encoder."""
    stem = dataclasses.replace(groups["all"], match=("encoders.student.backbone.patch_embed.*",), freeze_until=FOREVER)
    return Recipe(
        name=name,
        method=method,
        models={"student": Vit(arch="vit_base_patch16_224", size=224, positions="sincos", init="mae")},
        batch=batch,
        epochs=1000.0,
        optimiser=Optimiser(groups={"stem": stem, **groups}, reference_batch=batch, rule="linear"),
        schedule=Cosine(warmup=10 / 1000, end=end),
    )
