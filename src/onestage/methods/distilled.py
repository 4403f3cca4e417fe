"""Distillation from a frozen encoder: every row that the student sees explains the teacher's row of the same cell."""

from __future__ import annotations

from onestage.likelihood import Gaussian
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear, Quantised, Same
from onestage.targets import Encoded
from onestage.views import BlockReversed, Crop, SomeWords

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

UTA_TEXT = Method(
    name="uta_text",
    cite="UTA of a text encoder, arXiv:2405.19009 sec. 5 (words are hidden at random, the others explain their rows)",
    encoders={"text": Trained(), "teacher": Frozen()},
    views={},
    inputs={"kept": Input(encoder="text", parts={"text": Part(of="text", hide=SomeWords(ratio=0.4), mode="drop")})},
    terms={
        "align": Term(
            x="kept",
            y="text",
            target=Encoded(encoder="teacher", rows="kept"),
            predictor=Same(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)
"""The end of a text, which is its pooled row, is one of its words and is never hidden, so it counts as one row; so does
the start. The paper says no more than that hiding is random and its numbers are those of images: 0.4 is ViT-B's ratio.
"""

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

ROWS = (FD, UTA, UTA_MIM, UTA_TEXT, VQ_KD)
