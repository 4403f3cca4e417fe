"""Masked image modelling of codes: a frozen code book numbers every cell, and hidden ones are explained."""

from __future__ import annotations

import dataclasses

from onestage.likelihood import Categorical
from onestage.methods.masked import AUGMENTED, masked
from onestage.objective import Frozen, Method, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Encoded
from onestage.views import Block

BEIT = Method(
    name="beit",
    cite="BEiT, arXiv:2106.08254 sec. 2 (with any frozen code book: a run of VQ-KD; DALL-E's is not here)",
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
    cite="PeCo, arXiv:2111.12710 sec. 3 (BEiT's task; its perceptual tokenizer is unpublished, any code book serves)",
)

ROWS = (BEIT, PECO)
