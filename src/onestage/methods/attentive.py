"""Rows whose hidden cells depend on where a frozen teacher looks: MaskAlign, UMT and MILAN."""

from __future__ import annotations

from onestage.likelihood import Gaussian
from onestage.objective import EncoderRole as Role
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Aligned, Block, Prompting
from onestage.targets import Encoded
from onestage.views import Attentive, Crop

TAUGHT: dict[str, Role] = {"student": Trained(), "teacher": Frozen()}


def kept(ratio: float) -> dict[str, Input]:
    """What the teacher looks at, the rest dropped."""
    part = Part(of="view1", hide=Attentive(ratio=ratio), mode="drop")
    return {"kept": Input(encoder="student", parts={"image": part})}


MASKALIGN = Method(
    name="maskalign",
    cite="MaskAlign, arXiv:2211.08887 sec. 3 (the teacher's last five blocks, whitened, from mixes of the student's)",
    encoders=TAUGHT,
    views={"view1": Crop()},
    inputs=kept(0.7),
    terms={
        f"block{number}": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="teacher", rows="kept+cls", space="raw", blocks=(number,), norm="layer"),
            predictor=Aligned(block=number),
            likelihood=Gaussian(form="smooth_l1", beta=1.0),
            weight=2 / 5,
        )
        for number in range(1, 6)
    },
)
"""Each block counts a fifth of 2 smooth L1."""

UMT = Method(
    name="umt",
    cite="UMT, arXiv:2303.16058 sec. 3.2, for images (the teacher's last six blocks, projected, at what is kept)",
    encoders=TAUGHT,
    views={"view1": Crop()},
    inputs=kept(0.8),
    terms={
        f"block{number}": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="teacher", rows="kept", blocks=(number,)),
            predictor=Block(block=number),
            likelihood=Gaussian(form="cosine"),
            weight=2 / 6,
        )
        for number in range(1, 7)
    },
)
"""Each block counts a sixth of 2 - 2 cos."""

MILAN = Method(
    name="milan",
    cite="MILAN, arXiv:2208.06049 sec. 3 (2 - 2 cos at every cell and the class token, a decoder of hidden rows alone)",
    encoders=TAUGHT,
    views={"view1": Crop()},
    inputs=kept(0.75),
    terms={
        "language": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="teacher", rows="all+cls"),
            predictor=Prompting(),
            likelihood=Gaussian(form="cosine"),
            weight=2.0,
        )
    },
)

ROWS = (MASKALIGN, UMT, MILAN)
