"""Masked image modelling of codes: a frozen code book numbers every cell, and hidden ones are explained. With PeCo's
own code book; VQ-KD's stands among what is distilled."""

from __future__ import annotations

import dataclasses

from onestage.encoders import Aggregation, Regressor
from onestage.likelihood import Categorical, Gaussian
from onestage.methods.masked import AUGMENTED, masked
from onestage.objective import Ema, Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Drawn, Latent, Linear, Quantised, Same
from onestage.targets import Encoded, Pixels
from onestage.views import Block, Colour, Crop

BEIT = Method(
    name="beit",
    cite="BEiT, arXiv:2106.08254 sec. 2 (with any frozen code book: DALL-E's as published, or a run of VQ-KD)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views=AUGMENTED,
    inputs=masked(Block(cells=75, of=196)),
    terms={
        "codes": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="teacher", rows="hidden", space="codes"),
            predictor=Linear(),
            likelihood=Categorical(),
        )
    },
)

PECO = dataclasses.replace(
    BEIT,
    name="peco",
    cite="PeCo, arXiv:2111.12710 sec. 3 (BEiT's task with codes of a perceptual tokenizer: a run of peco_vq)",
)

PECO_VQ = Method(
    name="peco_vq",
    cite="PeCo's tokenizer, arXiv:2111.12710 sec. 3.2 (codes from which pictures are drawn that a frozen "
    "self-supervised ViT finds like the true ones)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop(scale=(0.08, 1.0))},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "pixels": Term(
            x="image",
            y="view1",
            target=Pixels(rows="all", norm="none"),
            predictor=Quantised(values=256, depth=3),
            likelihood=Gaussian(form="squared"),
        ),
        **{
            f"seen{block}": Term(
                x="image",
                y="view1",
                target=Encoded(encoder="teacher", rows="all", space="raw", blocks=(13 - block,)),
                predictor=Drawn(of="pixels"),
                likelihood=Gaussian(form="cosine"),
                weight=2.0,
            )
            for block in (3, 6, 9, 12)
        },
    },
)
"""The squared distance of unit rows is 2 - 2 cos. Blocks are those of a teacher of 12; a shallower one gives its first
for those that it lacks."""

BEIT2 = Method(
    name="beit2",
    cite="BEiT v2, arXiv:2208.06366 sec. 3.2 (VQ-KD's codes at hidden cells, from the rows and from patch aggregation)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop(colour=Colour(brightness=0.4, contrast=0.4, saturation=0.4))},
    inputs=masked(Block(cells=75, of=196)),
    projectors={"aggregation": Aggregation()},
    terms={
        "codes": BEIT.terms["codes"],
        "class": dataclasses.replace(BEIT.terms["codes"], projector="aggregation", shares="codes"),
    },
)
"""Both read the codes by one head."""

CAE = Method(
    name="cae",
    cite="CAE, arXiv:2202.03026 sec. 3 (codes of hidden cells from regressed latents, which are aligned with those "
    "that the encoder gives of the hidden cells alone)",
    encoders={
        "student": Trained(),
        "live": Ema(of="student", momentum=0.0, end=0.0, when="before"),
        "teacher": Frozen(),
    },
    views={"view1": Crop(scale=(0.08, 1.0))},
    inputs={
        "kept": Input(encoder="student", parts={"image": Part(of="view1", hide=Block(cells=98, of=196), mode="drop")})
    },
    projectors={"regressor": Regressor()},
    terms={
        "codes": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="teacher", rows="hidden", space="codes"),
            predictor=Latent(),
            likelihood=Categorical(),
            projector="regressor",
        ),
        "latents": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="live", rows="hidden", space="raw", sees="hidden"),
            predictor=Same(),
            likelihood=Gaussian(form="squared"),
            projector="regressor",
            weight=2.0,
        ),
    },
)
"""The target encoder has the student's own weights of each step, without gradients and without drop path."""

ROWS = (BEIT, PECO, PECO_VQ, BEIT2, CAE)
