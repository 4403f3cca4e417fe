"""Paper-size recipes that learn from clips: VideoMAE.

A number that neither the paper nor its code states is marked `assumed` in the note.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from onestage.encoders import Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.masked import VIDEO_MAE
from onestage.predictors import Decoder
from onestage.pretraining import Recipe


def video_mae_b16() -> Recipe:
    """VideoMAE with ViT-B/16 on Kinetics-400 (arXiv:2203.12602; MCG-NJU/VideoMAE).

    Data: 16 frames, every fourth of 30 a second. Command: onestage pretrain video_mae_b16 --data video:KINETICS/train
    --out runs/video_mae_b16. Expected: 81.5 % top-1 after fine-tuning (from memory). Assumed: crops of any place and
    size between the largest square and 0.66 of it, where the code has four sizes at thirteen places; Xavier's
    initialisation of the patch embedding, a bias before the decoder.
    """
    return _video_mae("video_mae_b16", "vit_base_patch16_224", Decoder(width=384, depth=4, heads=6), batch=2048)


def video_mae_l16() -> Recipe:
    """VideoMAE with ViT-L/16 on Kinetics-400 (arXiv:2203.12602; MCG-NJU/VideoMAE).

    Data, command and what is assumed: as video_mae_b16. Expected: 85.2 % top-1 after fine-tuning (from memory).
    """
    return _video_mae("video_mae_l16", "vit_large_patch16_224", Decoder(width=512, depth=12, heads=8), batch=512)


def _video_mae(name: str, arch: str, decoder: Decoder, batch: int) -> Recipe:
    """The learning rate is 1.5e-4 at batch 256, from 1e-6 and down to 1e-5; all three grow with the batch."""
    term = VIDEO_MAE.terms["pixels"]
    decoder = dataclasses.replace(decoder, positions="sines", pooled="left out")
    times = batch / 256
    model = Vit(arch=arch, size=224, frames=16, tubelet=2, class_tokens=0, pool="mean", positions="sines", init="mae")
    return Recipe(
        name=name,
        method=dataclasses.replace(VIDEO_MAE, terms={"pixels": dataclasses.replace(term, predictor=decoder)}),
        models={"student": model},
        batch=batch,
        epochs=1600,
        optimiser=Optimiser(
            groups={"all": Group(lr=1.5e-4 * times, betas=(0.9, 0.95), weight_decay=0.05)},
            reference_batch=batch,
            rule="linear",
        ),
        schedule=Cosine(warmup=40 / 1600, start=1e-6 * times, end=1e-5 * times),
    )


VIDEO_ROWS: tuple[Callable[[], Recipe], ...] = (video_mae_b16, video_mae_l16)
