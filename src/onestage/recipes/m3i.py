"""Paper-size recipes of M3I's table (arXiv:2211.09807): the twelve self-supervised rows, and all targets at once.

The setting is SiameseIM's published one (arXiv:2206.01204), which M3I builds on: batch 4096, AdamW, 400 epochs. M3I's
own numbers are not published; each note says what is assumed. Row k has SiameseIM's projector; the others have none, as
M3I's figure 1 shows none.
"""

from __future__ import annotations

from collections.abc import Callable

from onestage.encoders import ClipText, Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.all_in_one import M3I, M3I_BOTH, M3I_TEXT, M3I_UNMIXED, MIXMIM
from onestage.methods.inter_view import (
    DENSE_INSTANCE,
    INSTANCE,
    INSTANCE_MASKED,
    NOVEL_VIEW,
    SIAMESE_FEATURE,
    SIAMESE_PIXEL,
)
from onestage.methods.intra_view import (
    AUTO_ENCODER,
    DENSE_DISTILLATION,
    GLOBAL_DISTILLATION,
    MIM_FEATURE,
    MIM_GLOBAL,
    MIM_PIXEL,
)
from onestage.objective import Method
from onestage.pretraining import Recipe

FOREVER = 10**12
"""Steps; more than any run has."""


def auto_encoder_b16() -> Recipe:
    """Row a of M3I's table: an auto-encoder with ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain auto_encoder_b16 --data IMAGENET/train --out runs/auto_encoder
    Expected: 77.5 % top-1 after fine-tuning, as a control: its task needs no learning.
    Assumed: the setting.
    """
    return _row("auto_encoder_b16", AUTO_ENCODER)


def dense_distillation_b16() -> Recipe:
    """Row b: dense distillation from the student's own average, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain dense_distillation_b16 --data IMAGENET/train --out runs/dense_distillation
    Expected: 78.8 % top-1 after fine-tuning, as a control. Assumed: the setting.
    """
    return _row("dense_distillation_b16", DENSE_DISTILLATION)


def global_distillation_b16() -> Recipe:
    """Row c: global distillation among the images of a batch, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain global_distillation_b16 --data IMAGENET/train --out runs/global_distillation
    Expected: 77.1 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("global_distillation_b16", GLOBAL_DISTILLATION)


def mim_pixel_b16() -> Recipe:
    """Row d: masked image modelling of pixels, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain mim_pixel_b16 --data IMAGENET/train --out runs/mim_pixel
    Expected: 83.1 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("mim_pixel_b16", MIM_PIXEL)


def mim_feature_b16() -> Recipe:
    """Row e: masked image modelling of features, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain mim_feature_b16 --data IMAGENET/train --out runs/mim_feature
    Expected: 83.3 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("mim_feature_b16", MIM_FEATURE)


def mim_global_b16() -> Recipe:
    """Row f: masked image modelling of the global feature, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain mim_global_b16 --data IMAGENET/train --out runs/mim_global
    Expected: 83.2 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("mim_global_b16", MIM_GLOBAL)


def novel_view_b16() -> Recipe:
    """Row g: novel view synthesis, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain novel_view_b16 --data IMAGENET/train --out runs/novel_view
    Expected: 78.8 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("novel_view_b16", NOVEL_VIEW)


def dense_instance_b16() -> Recipe:
    """Row h: dense instance discrimination, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain dense_instance_b16 --data IMAGENET/train --out runs/dense_instance
    Expected: 83.2 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("dense_instance_b16", DENSE_INSTANCE)


def instance_b16() -> Recipe:
    """Row i: instance discrimination, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain instance_b16 --data IMAGENET/train --out runs/instance
    Expected: 83.0 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("instance_b16", INSTANCE)


def siamese_pixel_b16() -> Recipe:
    """Row j: siamese image modelling of pixels, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain siamese_pixel_b16 --data IMAGENET/train --out runs/siamese_pixel
    Expected: 78.9 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("siamese_pixel_b16", SIAMESE_PIXEL)


def siamese_feature_b16() -> Recipe:
    """Row k: SiameseIM with ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain siamese_feature_b16 --data IMAGENET/train --out runs/siamese_feature
    Expected: 83.7 % top-1 after fine-tuning (84.1 % with 1600 epochs). Its projector is a linear map and two blocks
    with batch norm (SiameseIM's code), on the encoder and on its average. Assumed: the setting, layer norm in the
    decoder, and the encoder's final norm, which SiameseIM leaves out.
    """
    return _row("siamese_feature_b16", SIAMESE_FEATURE)


def instance_masked_b16() -> Recipe:
    """Row l: instance discrimination with mask, ViT-B/16 (arXiv:2211.09807).

    Data: ImageNet-1K.
    Command: onestage pretrain instance_masked_b16 --data IMAGENET/train --out runs/instance_masked
    Expected: 82.9 % top-1 after fine-tuning. Assumed: the setting.
    """
    return _row("instance_masked_b16", INSTANCE_MASKED)


def m3i_b16() -> Recipe:
    """M3I with categories, ViT-B/16 (arXiv:2211.09807).

    Data: labelled images, ImageNet-1K.
    Command: onestage pretrain m3i_b16 --data IMAGENET/train --out runs/m3i
    Expected: 83.9 % top-1 after fine-tuning, 50.8 AP on COCO at this length.
    Assumed: the setting.
    """
    return _row("m3i_b16", M3I)


def m3i_unmixed_b16() -> Recipe:
    """M3I without mix, ViT-B/16 (arXiv:2211.09807).

    Data: labelled images, ImageNet-1K.
    Command: onestage pretrain m3i_unmixed_b16 --data IMAGENET/train --out runs/m3i_unmixed
    Expected: 83.7 % top-1 after fine-tuning, 50.3 AP on COCO. Assumed: the setting.
    """
    return _row("m3i_unmixed_b16", M3I_UNMIXED)


def m3i_text_b16() -> Recipe:
    """M3I with texts and ViT-B/16 (arXiv:2211.09807, its YFCC-15M setting).

    Data: captioned images, YFCC-15M.
    Command: onestage pretrain m3i_text_b16 --data YFCC --out runs/m3i_text
    Expected: 39.1 % zero-shot on ImageNet-1K, 83.7 % after fine-tuning. Assumed: 25 epochs and CLIP's text tower, as in
    the SLIP benchmark that its baseline's numbers are from; the image setting as for m3i_b16.
    """
    return _row("m3i_text_b16", M3I_TEXT, epochs=25.0, warmup=1.0)


def m3i_both_b16() -> Recipe:
    """M3I with categories and texts at once, ViT-B/16 (arXiv:2211.09807, the setting of its 1B model).

    Data: labelled and captioned images in one mixture.
    Command: onestage pretrain m3i_both_b16
    --data 0.5*IMAGENET21K+0.5*YFCC --out runs/m3i_both
    Expected: nothing is published at this size (InternImage-H: 89.2 % on ImageNet-1K). Assumed: all but the targets.
    """
    return _row("m3i_both_b16", M3I_BOTH, epochs=30.0, warmup=1.0)


def mixmim_b16() -> Recipe:
    """MixMIM's objective on ViT-B/16 (arXiv:2205.13137; the paper's encoder is a Swin of its own).

    Data: ImageNet-1K.
    Command: onestage pretrain mixmim_b16 --data IMAGENET/train --out runs/mixmim
    Expected: nothing is published for a plain ViT (84.6 % with MixMIM-B at 300 epochs).
    Assumed: the optimiser.
    """
    return _row("mixmim_b16", MIXMIM, epochs=300.0)


M3I_ROWS: tuple[Callable[[], Recipe], ...] = (
    auto_encoder_b16,
    dense_distillation_b16,
    global_distillation_b16,
    mim_pixel_b16,
    mim_feature_b16,
    mim_global_b16,
    novel_view_b16,
    dense_instance_b16,
    instance_b16,
    siamese_pixel_b16,
    siamese_feature_b16,
    instance_masked_b16,
    m3i_b16,
    m3i_unmixed_b16,
    m3i_text_b16,
    m3i_both_b16,
    mixmim_b16,
)


def _row(name: str, method: Method, epochs: float = 400.0, warmup: float = 40.0) -> Recipe:
    """SiameseIM's optimiser and encoder: fixed sine-cosine positions, a patch embedding that stays random."""
    pooled = "mean" if any(asked.mix is not None for asked in method.inputs.values()) else "cls"
    student = Vit(arch="vit_base_patch16_224", size=224, positions="sincos", init="mae", pool=pooled)
    text = ClipText(joint=512, width=512, depth=12, heads=8, context=77)
    body = Group(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05, clip=1.0)
    stem = Group(lr=1e-3, match=("encoders.student.backbone.patch_embed.*",), freeze_until=FOREVER)
    return Recipe(
        name=name,
        method=method,
        models={"student": student, "text": text} if method.needs_texts else {"student": student},
        batch=4096,
        epochs=epochs,
        optimiser=Optimiser(groups={"stem": stem, "all": body}, reference_batch=4096, rule="linear"),
        schedule=Cosine(warmup=warmup / epochs),
    )
