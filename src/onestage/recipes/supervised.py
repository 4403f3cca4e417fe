"""Paper-size recipes of supervised pre-training. Each docstring is a lab note.

Both papers see every picture three times in a row of batches (repeated augmentation), so an epoch of theirs passes a
third of the data; `repeats: 3` does the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from onestage.encoders import Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.likelihood import Boltzmann
from onestage.methods.supervised import DEIT, DEIT3, DEIT_DISTILLED
from onestage.pretraining import Recipe
from onestage.views import Blend, Crop, RandAugment

BASE, LARGE = "deit3_base_patch16_224", "deit3_large_patch16_224"
BARE = ("*.pos_embed", "*.cls_token")


def deit_b16() -> Recipe:
    """DeiT with ViT-B/16, without distillation (arXiv:2012.12877, table 9; its code's defaults).

    Data: ImageNet-1K. Command: onestage pretrain deit_b16 --data IMAGENET/train --out runs/deit_b16
    Expected: 81.8 % top-1 on ImageNet-1K. Left out: the average of the weights (0.99996) that its code keeps beside
    the model, and ten epochs of cool-down at the last learning rate. In its code RandAugment takes the place of
    colour jitter. Assumed: bilinear warps.
    """
    return Recipe(
        name="deit_b16",
        method=DEIT,
        models={"student": Vit(arch="vit_base_patch16_224", size=224, drop_path=0.1)},
        batch=1024,
        epochs=300,
        repeats=3,
        optimiser=_optimiser(Group(lr=1e-3, weight_decay=0.05, no_decay=BARE), 1024, "linear"),
        schedule=Cosine(warmup=5 / 300, start=1e-6, end=1e-5),
    )


def deit_distilled_b16() -> Recipe:
    """DeiT with ViT-B/16, distilled from a RegNetY-16GF (arXiv:2012.12877, table 3 and 9; its code's defaults).

    Data: ImageNet-1K. Command: onestage pretrain deit_distilled_b16 --data IMAGENET/train
    --teacher timm:regnety_160.deit_in1k --out runs/deit_distilled_b16
    Expected: 83.4 % top-1 on ImageNet-1K by the mean of both heads' probabilities (evaluate classify); its code
    averages their scores. The teacher sees the blended view too, and its answer is not smoothed. Left out and assumed:
    as deit_b16.
    """
    group = Group(lr=1e-3, weight_decay=0.05, no_decay=(*BARE, "*.reg_token"))
    return dataclasses.replace(
        deit_b16(),
        name="deit_distilled_b16",
        method=DEIT_DISTILLED,
        models={"student": Vit(arch="vit_base_patch16_224", size=224, drop_path=0.1, class_tokens=2)},
        optimiser=_optimiser(group, 1024, "linear"),
    )


def deit3_b16() -> Recipe:
    """DeiT III with ViT-B/16, its first stage at 192 pixels (arXiv:2204.07118; its README).

    Data: ImageNet-1K. Command: onestage pretrain deit3_b16 --data IMAGENET/train --out runs/deit3_b16, and then
    onestage pretrain deit3_b16_224 --data IMAGENET/train --init runs/deit3_b16 --out runs/deit3_b16_224
    Expected: 82.8 % top-1 on ImageNet-1K in its log, 83.8 % after the second stage. LAMB adapts every tensor, by its
    paper; timm's, which the code used, leaves out those without decay and clips the norm to 1. Assumed: the end of the
    schedule, 1e-5, as in DeiT.
    """
    return _deit3("deit3_b16", BASE, 192, 0.2)


def deit3_l16() -> Recipe:
    """DeiT III with ViT-L/16, its first stage at 192 pixels (arXiv:2204.07118; its README).

    Data and command: as deit3_b16, with deit3_l16_224 for the second stage. Expected: 84.9 % top-1 on ImageNet-1K after
    that. Optimiser and assumed: as deit3_b16.
    """
    return _deit3("deit3_l16", LARGE, 192, 0.45)


def _deit3(name: str, arch: str, size: int, drop_path: float) -> Recipe:
    return Recipe(
        name=name,
        method=DEIT3,
        models={"student": _student(arch, size, drop_path)},
        batch=2048,
        epochs=800,
        repeats=3,
        optimiser=_optimiser(Group(kind="lamb", lr=3e-3, weight_decay=0.05, no_decay=BARE), 2048, "none"),
        schedule=Cosine(warmup=5 / 800, start=1e-6, end=1e-5),
    )


def deit3_b16_224() -> Recipe:
    """The second stage of DeiT III with ViT-B/16: 224 pixels and cross-entropy (arXiv:2204.07118; README).

    Data: as deit3_b16, whose run it starts from (--init). Expected: 83.8 % top-1 on ImageNet-1K. Its categories start
    anew, since `--init` takes encoders. Assumed: warm-up of 5 epochs and end of the schedule, as in the first stage.
    """
    return _second_stage("deit3_b16_224", BASE, 0.2)


def deit3_l16_224() -> Recipe:
    """The second stage of DeiT III with ViT-L/16: 224 pixels and cross-entropy (arXiv:2204.07118; README).

    Data: as deit3_l16, whose run it starts from (--init). Expected: 84.9 % top-1 on ImageNet-1K. Assumed: as
    deit3_b16_224.
    """
    return _second_stage("deit3_l16_224", LARGE, 0.45)


def _second_stage(name: str, arch: str, drop_path: float) -> Recipe:
    view = Crop(scale=(0.08, 1.0), augment=RandAugment(), blend=Blend())
    term = dataclasses.replace(DEIT3.terms["category"], likelihood=Boltzmann(over="table", smoothing=0.1))
    return Recipe(
        name=name,
        method=dataclasses.replace(DEIT3, views={"view1": view}, terms={"category": term}),
        models={"student": _student(arch, 224, drop_path)},
        batch=512,
        epochs=20,
        optimiser=_optimiser(Group(lr=1e-5, weight_decay=0.1, no_decay=BARE), 512, "none"),
        schedule=Cosine(warmup=5 / 20, start=1e-6, end=1e-6),
    )


SUPERVISED_ROWS: tuple[Callable[[], Recipe], ...] = (
    deit_b16,
    deit_distilled_b16,
    deit3_b16,
    deit3_b16_224,
    deit3_l16,
    deit3_l16_224,
)


def _student(arch: str, size: int, drop_path: float) -> Vit:
    """No position for the class token, layer scale, and one rate of drop path for all blocks."""
    return Vit(arch=arch, size=size, drop_path=drop_path, drop_path_shape="constant", layer_scale=1e-4)


def _optimiser(group: Group, batch: int, rule: Literal["linear", "none"]) -> Optimiser:
    return Optimiser(groups={"all": group}, reference_batch=batch, rule=rule)
