"""Weakly-supervised pre-training: a view explains its text among the texts of the batch."""

from __future__ import annotations

from onestage.likelihood import Boltzmann
from onestage.objective import Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Encoded
from onestage.views import Crop

CLIP = Method(
    name="clip",
    cite="CLIP, arXiv:2103.00020 fig. 3",
    encoders={"student": Trained(), "text": Trained()},
    views={"view1": Crop(scale=(0.9, 1.0), flip=0.0)},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "pair": Term(
            x="image",
            y="text",
            target=Encoded(encoder="text", rows="pooled"),
            predictor=Linear(),
            likelihood=Boltzmann(over="batch", temperature_is="learned"),
        )
    },
)

ROWS = (CLIP,)
