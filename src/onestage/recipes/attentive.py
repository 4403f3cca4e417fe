"""Paper-size recipes of rows that hide what a frozen teacher does not look at: MaskAlign, UMT and MILAN.

A number that neither the paper nor its code states is marked `assumed` in the note. The released code of MILAN and UMT
gives the teacher images normalised by ImageNet's statistics; here a teacher normalises by its own, as the papers mean.
"""

from __future__ import annotations

from collections.abc import Callable

from onestage.encoders import Vit
from onestage.encoders.vit import Pool
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.attentive import MASKALIGN, MILAN, UMT
from onestage.objective import Method
from onestage.pretraining import Recipe


def maskalign_b16() -> Recipe:
    """MaskAlign with ViT-B/16 from CLIP-B/16 (arXiv:2211.08887, sec. 4; OpenDriveLab/maskalign).

    Data: ImageNet-1K. Command: onestage pretrain maskalign_b16 --data IMAGENET/train
    --teacher open_clip:ViT-B-16-quickgelu/FILE --out runs/maskalign_b16
    Expected: 85.4 % top-1 after fine-tuning. The encoder's final norm is not trained, since no block's output is behind
    it. The released code builds a head for each of twelve blocks and uses five; here there are five.
    """
    return _recipe("maskalign_b16", MASKALIGN, _vit("base", 0.1), 1024, 6e-4, 200, 20, (1e-5, 0.0))


def maskalign_l16() -> Recipe:
    """MaskAlign with ViT-L/16 from CLIP-L/14 (arXiv:2211.08887, sec. 4; OpenDriveLab/maskalign).

    Data and command: as maskalign_b16, with --teacher open_clip:ViT-L-14-quickgelu/FILE built for 196 pixels, so that
    its grid is 14 x 14. Expected: 87.4 % top-1 after fine-tuning. A student's 24 blocks are mixed in the paper; here
    the last 12 of them.
    """
    return _recipe("maskalign_l16", MASKALIGN, _vit("large", 0.2), 1024, 6e-4, 200, 20, (1e-5, 0.0))


def umt_b16() -> Recipe:
    """UMT's first stage on images, ViT-B/16 from CLIP-B/16 (arXiv:2303.16058, table 13; OpenGVLab/unmasked_teacher).

    Data: images; the paper has videos (K-710, 8 frames). Command: as maskalign_b16 with umt_b16. Expected: not
    published for images. Assumed: one frame; MAE's sines and cosines for the positions of both encoder and head, where
    the code has one row of sines over all frames; a class token, which explains nothing.
    """
    model = _vit("base", 0.1, pool="mean")
    return _recipe("umt_b16", UMT, model, 2048, 1.2e-3, 201, 40, (8e-5, 8e-6))


def umt_l16() -> Recipe:
    """UMT's first stage on images, ViT-L/16 from CLIP-L/14 at 196 pixels (arXiv:2303.16058, table 13).

    Data and command: as umt_b16. Expected: not published for images. Assumed: as umt_b16.
    """
    model = _vit("large", 0.2, pool="mean")
    return _recipe("umt_l16", UMT, model, 2048, 1.2e-3, 201, 40, (8e-5, 8e-6))


def milan_b16() -> Recipe:
    """MILAN with ViT-B/16 from CLIP-B/16 (arXiv:2208.06049, appendix; zejiangh/MILAN).

    Data: ImageNet-1K. Command: as maskalign_b16 with milan_b16. Expected: 85.4 % top-1 after fine-tuning. The
    student's pixel statistics are ImageNet's.
    """
    return _recipe("milan_b16", MILAN, _vit("base", 0.0), 4096, 2.4e-3, 400, 40, (0.0, 0.0))


def milan_l16() -> Recipe:
    """MILAN with ViT-L/16, from CLIP-B/16 too (arXiv:2208.06049, appendix; zejiangh/MILAN).

    Data and command: as milan_b16. Expected: 87.8 % top-1 after fine-tuning.
    """
    return _recipe("milan_l16", MILAN, _vit("large", 0.0), 4096, 2.4e-3, 400, 40, (0.0, 0.0))


ATTENTIVE_ROWS: tuple[Callable[[], Recipe], ...] = (
    maskalign_b16,
    maskalign_l16,
    umt_b16,
    umt_l16,
    milan_b16,
    milan_l16,
)


def _vit(size: str, drop_path: float, pool: Pool = "cls") -> Vit:
    return Vit(arch=f"vit_{size}_patch16_224", size=224, positions="sincos", init="mae", drop_path=drop_path, pool=pool)


def _recipe(
    name: str,
    method: Method,
    model: Vit,
    batch: int,
    lr: float,
    epochs: int,
    warmup: int,
    ends: tuple[float, float],
) -> Recipe:
    """MAE's optimiser; `ends` are the learning rates at the end and at the start."""
    return Recipe(
        name=name,
        method=method,
        models={"student": model},
        batch=batch,
        epochs=float(epochs),
        optimiser=Optimiser(groups={"all": Group(lr=lr, betas=(0.9, 0.95))}, reference_batch=batch),
        schedule=Cosine(warmup=warmup / epochs, start=ends[1], end=ends[0]),
    )
