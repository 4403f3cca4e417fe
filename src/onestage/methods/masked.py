"""Masked image modelling: hidden cells of a view are explained from the rest."""

from __future__ import annotations

import dataclasses

from onestage.likelihood import Gaussian
from onestage.objective import Ema, Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Decoder, Linear
from onestage.targets import Encoded, Hog, Pixels
from onestage.views import Block, Colour, Crop, Frames, Random, Tube, Units
from onestage.views import ViewSpec as View

AUGMENTED: dict[str, View] = {
    "view1": Crop(scale=(0.08, 1.0), colour=Colour(brightness=0.4, contrast=0.4, saturation=0.4))
}
"""BEiT's view (arXiv:2106.08254), which data2vec and MVP have too."""


def masked(hide: Block | Units) -> dict[str, Input]:
    """The view with mask tokens where it is hidden."""
    return {"masked": Input(encoder="student", parts={"image": Part(of="view1", hide=hide, mode="replace")})}


MAE = Method(
    name="mae",
    cite="MAE, arXiv:2111.06377 sec. 3",
    encoders={"student": Trained()},
    views={"view1": Crop()},
    inputs={"kept": Input(encoder="student", parts={"image": Part(of="view1", hide=Random(ratio=0.75), mode="drop")})},
    terms={
        "pixels": Term(
            x="kept",
            y="view1",
            target=Pixels(rows="hidden", norm="patch"),
            predictor=Decoder(width=512, depth=8, heads=16),
            likelihood=Gaussian(form="squared"),
        )
    },
)

VIDEO_MAE = Method(
    name="video_mae",
    cite="VideoMAE, arXiv:2203.12602 sec. 3 (MAE over clips: the same cells are hidden in all frames)",
    encoders={"student": Trained()},
    views={
        "view1": Crop(
            scale=(0.33, 0.75),
            ratio=(6 / 7, 7 / 6),
            flip=0.0,
            interpolation="bilinear",
            frames=Frames(count=16, seconds=64 / 30),
        )
    },
    inputs={"kept": Input(encoder="student", parts={"image": Part(of="view1", hide=Tube(ratio=0.9), mode="drop")})},
    terms={
        "pixels": Term(
            x="kept",
            y="view1",
            target=Pixels(rows="hidden", norm="channel"),
            predictor=Decoder(width=384, depth=4, heads=6, positions="sines", pooled="left out"),
            likelihood=Gaussian(form="squared"),
        )
    },
)

SIMMIM = Method(
    name="simmim",
    cite="SimMIM, arXiv:2111.09886 sec. 3 (L1 on hidden pixels, units of 32 pixels, one linear layer)",
    encoders={"student": Trained()},
    views={"view1": Crop(scale=(0.67, 1.0), interpolation="bilinear")},
    inputs=masked(Units(ratio=0.6, side=2)),
    terms={
        "pixels": Term(
            x="masked",
            y="view1",
            target=Pixels(rows="hidden", norm="none"),
            predictor=Linear(),
            likelihood=Gaussian(form="smooth_l1", beta=0.0),
        )
    },
)

MASKFEAT = Method(
    name="maskfeat",
    cite="MaskFeat, arXiv:2112.09133 sec. 3 (histograms of gradients; the encoder's final norm is the head's)",
    encoders={"student": Trained()},
    views={"view1": Crop(scale=(0.5, 1.0))},
    inputs=masked(Block(cells=78, of=196, min_block=15)),
    terms={
        "hog": Term(
            x="masked",
            y="view1",
            target=Hog(rows="hidden"),
            predictor=Linear(),
            likelihood=Gaussian(form="squared"),
        )
    },
)

DATA2VEC = Method(
    name="data2vec",
    cite="data2vec, arXiv:2202.03555 sec. 3, for images (the mean of the average's last six blocks at hidden cells)",
    encoders={"student": Trained(), "average": Ema(of="student", momentum=0.9998, end=0.9998)},
    views=AUGMENTED,
    inputs=masked(Block(cells=120, of=196)),
    terms={
        "features": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="average", rows="hidden", space="raw", blocks=(1, 2, 3, 4, 5, 6), norm="layer"),
            predictor=Linear(),
            likelihood=Gaussian(form="smooth_l1", beta=2.0),
        )
    },
)

EVA = Method(
    name="eva",
    cite="EVA, arXiv:2211.07636 sec. 2.1 (masked tokens only, 105 of 256 cells)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop()},
    inputs=masked(Block(cells=105, of=256)),
    terms={
        "feature": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="teacher", rows="hidden"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)

EVA02 = dataclasses.replace(
    EVA,
    name="eva02",
    cite="EVA-02, arXiv:2303.11331 sec. 2 (EVA's task with EVA-CLIP as teacher; what is new is the student)",
)

MVP = Method(
    name="mvp",
    cite="MVP, arXiv:2203.05175 (class token and every patch, each with weight 1/(M+1))",
    encoders={"student": Trained(), "teacher": Frozen()},
    views=AUGMENTED,
    inputs=masked(Block(cells=75, of=196)),
    terms={
        "guide": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="teacher", rows="all+cls"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)

ROWS = (MAE, VIDEO_MAE, SIMMIM, MASKFEAT, DATA2VEC, EVA, EVA02, MVP)
