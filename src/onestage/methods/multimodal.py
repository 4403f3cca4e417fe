"""Masked data modelling: hidden cells of images and hidden words of texts, alone and in pairs (BEiT-3)."""

from __future__ import annotations

import dataclasses

from onestage.likelihood import Categorical
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.targets import Encoded, Spelled
from onestage.views import Block, Crop, SomeWords

CELLS = Part(of="view1", hide=Block(ratio=0.4), mode="replace")


def words(ratio: float) -> Part:
    """A text with a share of its words hidden."""
    return Part(of="text", hide=SomeWords(ratio=ratio), mode="replace")


IMAGE = Term(
    x="image",
    y="view1",
    target=Encoded(encoder="teacher", rows="hidden", space="codes"),
    predictor=Linear(),
    likelihood=Categorical(),
)
TEXT = Term(x="text", y="text", target=Spelled(), predictor=Linear(), likelihood=Categorical())

BEIT3 = Method(
    name="beit3",
    cite="BEiT-3, arXiv:2208.10442 sec. 2 (masked data modelling on images, texts and pairs: codes of hidden cells, "
    "and hidden words)",
    encoders={"student": Trained(), "teacher": Frozen()},
    views={"view1": Crop()},
    inputs={
        "image": Input(encoder="student", parts={"image": CELLS}),
        "text": Input(encoder="student", parts={"text": words(0.15)}),
        "pair": Input(encoder="student", parts={"image": CELLS, "text": words(0.5)}),
    },
    terms={
        "image": IMAGE,
        "text": TEXT,
        "pair_image": dataclasses.replace(IMAGE, x="pair/image", shares="image"),
        "pair_text": dataclasses.replace(TEXT, x="pair/text", shares="text"),
    },
)
"""A sample's image and text serve alone and as a pair; one head reads codes and one reads words."""

ROWS = (BEIT3,)
