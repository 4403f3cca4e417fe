"""Masked image modelling of codes: a frozen code book numbers every cell, and hidden ones are explained."""

from __future__ import annotations

import dataclasses

from onestage.likelihood import Categorical
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Encoded
from onestage.views import Block, Colour, Crop

BEIT = Method(
    name="beit",
    cite="BEiT, arXiv:2106.08254 sec. 2 (with any frozen code book: a run of VQ-KD; DALL-E's is not here)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop(scale=(0.08, 1.0), colour=Colour(brightness=0.4, contrast=0.4, saturation=0.4))},
    inputs={
        "masked": Input(
            encoder="student", parts={"image": Part(of="view1", hide=Block(cells=75, of=196), mode="replace")}
        )
    },
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
    cite="PeCo, arXiv:2111.12710 sec. 3 (BEiT's task; its perceptual tokenizer is unpublished, any code book serves)",
)

ROWS = (BEIT, PECO)
