"""Supervised pre-training: a view explains its category (M3I's table, first row), and a teacher's answer with it."""

from __future__ import annotations

import dataclasses

from onestage.encoders import Second
from onestage.likelihood import Bernoulli, Boltzmann, Scores
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Encoded, Table
from onestage.views import Blend, Colour, Crop, Erase, RandAugment, ThreeAugment

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

DEIT = Method(
    name="deit",
    cite="DeiT, arXiv:2012.12877 sec. 6 and table 9, without distillation",
    encoders={"student": Trained()},
    views={"view1": Crop(scale=(0.08, 1.0), augment=RandAugment(), erase=Erase(), blend=Blend())},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "category": Term(
            x="image",
            y="label",
            target=Table(),
            predictor=Linear(),
            likelihood=Boltzmann(over="table", smoothing=0.1),
        )
    },
)

DEIT_DISTILLED = Method(
    name="deit_distilled",
    cite="DeiT, arXiv:2012.12877 sec. 3 (hard distillation through a second class token; eq. 3)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views=DEIT.views,
    inputs=DEIT.inputs,
    projectors={"distillation": Second()},
    terms={
        "category": dataclasses.replace(DEIT.terms["category"], weight=0.5),
        "distilled": Term(
            x="image",
            y="view1",
            target=Encoded(encoder="teacher", rows="pooled", space="categories"),
            predictor=Linear(),
            likelihood=Scores(),
            projector="distillation",
            weight=0.5,
        ),
    },
)
"""Soft distillation (eq. 2) is `likelihood: {kind: scores, form: soft}`, with weights of 0.9 and 0.1."""

DEIT3 = Method(
    name="deit3",
    cite="DeiT III, arXiv:2204.07118 sec. 4 (3-Augment, binary cross-entropy)",
    encoders={"student": Trained()},
    views={
        "view1": Crop(
            scale=(0.08, 1.0),
            augment=ThreeAugment(),
            colour=Colour(brightness=0.3, contrast=0.3, saturation=0.3, probability=1.0),
            blend=Blend(),
        )
    },
    inputs=DEIT.inputs,
    terms={"category": Term(x="image", y="label", target=Table(), predictor=Linear(), likelihood=Bernoulli())},
)

ROWS = (SUPERVISED, DEIT, DEIT_DISTILLED, DEIT3)
