"""Distillation from a frozen encoder: every row that the student sees explains the teacher's row of the same cell."""

from __future__ import annotations

from onestage.likelihood import Gaussian
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear, Quantised
from onestage.targets import Encoded
from onestage.views import BlockReversed, Crop

FD = Method(
    name="fd",
    cite="FD, arXiv:2205.14141 sec. 3 (whitened rows before the projection, smooth L1 of beta 2)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop(scale=(0.08, 1.0), interpolation="bilinear")},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "distil": Term(
            x="image",
            y="view1",
            target=Encoded(encoder="teacher", rows="all+cls", space="raw", norm="layer"),
            predictor=Linear(),
            likelihood=Gaussian(form="smooth_l1", beta=2.0),
        )
    },
)

UTA = Method(
    name="uta",
    cite="UTA, arXiv:2405.19009 sec. 2.2",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop()},
    inputs={
        "kept": Input(encoder="student", parts={"image": Part(of="view1", hide=BlockReversed(ratio=0.4), mode="drop")})
    },
    terms={
        "align": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="teacher", rows="kept+cls"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)

UTA_MIM = Method(
    name="uta_mim",
    cite="UTA+MIM, arXiv:2405.19009 table 6 (mask tokens join the input; what is hidden is explained as well)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop()},
    inputs={
        "masked": Input(
            encoder="student", parts={"image": Part(of="view1", hide=BlockReversed(ratio=0.4), mode="replace")}
        )
    },
    terms={
        "align": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="teacher", rows="kept+cls"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        ),
        "feature": Term(
            x="masked",
            y="view1",
            target=Encoded(encoder="teacher", rows="hidden"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        ),
    },
)

VQ_KD = Method(
    name="vqkd",
    cite="VQ-KD, the tokenizer of BEiT v2, arXiv:2208.06366 sec. 3.1 (patches alone, 1 - cos and the commitment)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop(scale=(0.08, 1.0))},
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
    terms={
        "codes": Term(
            x="image",
            y="view1",
            target=Encoded(encoder="teacher", rows="all"),
            predictor=Quantised(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)

ROWS = (FD, UTA, UTA_MIM, VQ_KD)
