"""Supervised pre-training: a view explains its category (M3I's table, first row)."""

from __future__ import annotations

from onestage.likelihood import Boltzmann
from onestage.objective import Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Table
from onestage.views import Crop

SUPERVISED = Method(
    name="supervised",
    cite="ViT, arXiv:2010.11929 sec. 4.1; M3I, arXiv:2211.09807 table 1, Image Classification",
    encoders={"student": Trained()},
    views={"view1": Crop(scale=(0.08, 1.0))},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "category": Term(x="image", y="label", target=Table(), predictor=Linear(), likelihood=Boltzmann(over="table"))
    },
)

ROWS = (SUPERVISED,)
