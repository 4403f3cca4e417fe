"""Paper-size recipes of rows that a frozen teacher guides, beside those of `paper.py`: other teachers, other terms."""

from __future__ import annotations

import dataclasses

from onestage.encoders import ClipText
from onestage.methods.distilled import UTA_MIM, UTA_TEXT
from onestage.objective import Method
from onestage.pretraining import Recipe
from onestage.recipes.paper import mvp_b16, mvp_l16, uta_b14
from onestage.targets import Encoded
from onestage.views import SomeWords


def mvp_b16_dino() -> Recipe:
    """MVP with ViT-B/16, guided by DINO-B/16 in place of CLIP (arXiv:2203.05175, the paper's comparison of guides).

    Data: ImageNet-1K. Command: onestage pretrain mvp_b16_dino --data IMAGENET/train
    --teacher timm:vit_base_patch16_224.dino/FILE --out runs/mvp_b16_dino
    Expected: 83.6 % top-1 after fine-tuning, 47.0 mIoU on ADE20K (CLIP: 84.4 and 52.4). Assumed: as mvp_b16; DINO has
    no space shared with texts, so its own normed rows are explained, and the student's pixel statistics are DINO's.
    """
    return _by_dino(mvp_b16(), "mvp_b16_dino")


def mvp_l16_dino() -> Recipe:
    """MVP with ViT-L/16, guided by DINO-B/16: the two sizes and the two guides of arXiv:2203.05175 crossed.

    Data, teacher and command: as mvp_b16_dino. Expected: not published; CLIP guides ViT-L to 86.3 % top-1 after
    fine-tuning. Assumed: as mvp_l16 and mvp_b16_dino.
    """
    return _by_dino(mvp_l16(), "mvp_l16_dino")


def uta_mim_b14() -> Recipe:
    """UTA with the loss of masked image modelling beside its own, ViT-B/14 (arXiv:2405.19009, table 6).

    Data: ImageNet-21K, 90 epochs. Teacher and command: as uta_b14. Expected: 70.7 % zero-shot on ImageNet-1K, where
    UTA alone has 75.0. Assumed: both terms have weight 1 and a linear head each; the hidden ratio of uta_b14.
    """
    alone = uta_b14()
    schedule = dataclasses.replace(alone.schedule, warmup=1 / 90)
    return dataclasses.replace(alone, name="uta_mim_b14", method=UTA_MIM, epochs=90, schedule=schedule)


def uta_text_b() -> Recipe:
    """UTA of a text encoder, which the paper tried and left (arXiv:2405.19009, sec. 5).

    Data: DataComp-1B, 1 epoch; its texts alone are learned from. Teacher: as uta_b14. Command: onestage pretrain
    uta_text_b --data PAIRS --out runs/uta_text_b
    Expected: 54.5 % zero-shot on ImageNet-1K, much less than with the teacher's own texts. The numbers are those of
    images. Assumed: the size of "a smaller text encoder" is CLIP-B's (12 blocks of 512; the teacher has 24 of 1024),
    words hidden at ViT-B's ratio, a warm-up of as large a share of the run, no decay of one-dimensional weights.
    """
    images = uta_b14()
    watch = dataclasses.replace(images.watch, hide=SomeWords(ratio=0.5))
    text = ClipText(joint=1024, width=512, depth=12, heads=8)
    return dataclasses.replace(images, name="uta_text_b", method=UTA_TEXT, models={"text": text}, epochs=1, watch=watch)


GUIDED_ROWS = (mvp_b16_dino, mvp_l16_dino, uta_mim_b14, uta_text_b)
"""The functions above, in the order they are listed to people."""


def _by_dino(clip: Recipe, name: str) -> Recipe:
    """The recipe with DINO as its guide: no space of texts, and other pixel statistics."""
    student = dataclasses.replace(clip.models["student"], normalise="imagenet")
    return dataclasses.replace(clip, name=name, method=_in_raw_space(clip.method), models={"student": student})


def _in_raw_space(method: Method) -> Method:
    """The same row with its teacher's rows from before the space shared with texts."""
    terms = {
        name: dataclasses.replace(term, target=dataclasses.replace(term.target, space="raw"))
        for name, term in method.terms.items()
        if isinstance(term.target, Encoded)
    }
    return dataclasses.replace(method, terms=terms)
