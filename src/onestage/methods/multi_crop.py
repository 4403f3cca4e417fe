"""Siamese methods with many small crops: every view that the student sees explains each global view but itself.

Published for ViTs, with codes or prototypes in place of negatives (M3I, arXiv:2211.09807, table 1, rows i and l).
"""

from __future__ import annotations

import dataclasses

from onestage.encoders import Codes, Mlp
from onestage.likelihood import Centred, Prototypes
from onestage.methods.settings import JITTER, SOLARISED
from onestage.methods.siamese import AVERAGE, TWO
from onestage.objective import Ema, Input, Method, Part, Term, Trained
from onestage.objective import EncoderRole as Role
from onestage.objective.crops import local_inputs, local_views, pairs
from onestage.predictors import Same
from onestage.targets import Encoded
from onestage.views import Colour, Crop, Random, Sampled
from onestage.views import ViewSpec as View

GLOBALS = ("view1", "view2")
_LOCAL = dataclasses.replace(JITTER, blur=0.5)
_ENCODERS: dict[str, Role] = {
    "student": Trained(),
    "average": Ema(of="student", momentum=0.996, when="after", buffers="own"),
}
SHARPENED = Centred(target_temperature=0.07, target_start=0.04, target_warmup=30 / 100)
"""The target's temperature reaches 0.07 after 30 epochs, of 100 here."""
_CODES = Term(x="one", y="view2", target=AVERAGE, predictor=Same(), likelihood=SHARPENED, projector="head")


def two_and_locals(count: int, split: float) -> dict[str, View]:
    """Two global crops of at least `split` of the picture, and local ones of 96 pixels of at most that."""
    whole = Crop(scale=(split, 1.0), colour=JITTER)
    small = Crop(size=96, scale=(0.05, split), colour=_LOCAL)
    return {"view1": whole, "view2": dataclasses.replace(whole, colour=SOLARISED)} | local_views(count, small)


def dino(count: int, split: float) -> Method:
    """DINO with `count` local crops."""
    inputs = TWO | local_inputs(count)
    return Method(
        name="dino",
        cite="DINO, arXiv:2104.14294 sec. 3 (the mean over its pairs of views; assumed: half of the local crops are "
        "blurred)",
        encoders=_ENCODERS,
        views=two_and_locals(count, split),
        inputs=inputs,
        terms=pairs(inputs, GLOBALS, _CODES),
        projectors={"head": Codes()},
    )


def ibot(count: int, split: float) -> Method:
    """iBOT with `count` local crops."""
    inputs = _MASKED | local_inputs(count)
    return Method(
        name="ibot",
        cite="iBOT, arXiv:2111.07832 sec. 3 (every other global crop hides a share of its cells from [0.1, 0.5])",
        encoders=_ENCODERS,
        views=two_and_locals(count, split),
        inputs=inputs,
        terms=pairs(inputs, GLOBALS, _CODES)
        | {"patch1": _PATCH, "patch2": dataclasses.replace(_PATCH, x="two", y="view2", shares="patch1")},
        projectors={"head": Codes(codes=8192, of="both")},
    )


_EVERY_OTHER = Sampled(low=0.1, high=0.5, none=0.5, form="blocks", weigh="images")
_MASKED = {
    name: Input(encoder="student", parts={"image": Part(of=view, hide=_EVERY_OTHER, mode="replace")})
    for name, view in (("one", "view1"), ("two", "view2"))
}
_PATCH = dataclasses.replace(
    _CODES, y="view1", target=Encoded(encoder="average", rows="hidden", space="raw"), weight=0.25
)
"""Its code's mean is over all images, also those that hide nothing: half of it, and half for each view."""

_ANCHOR = Colour(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2, blur=0.5)
_ANCHORED = Crop(scale=(0.3, 1.0), colour=_ANCHOR)
_ANCHORS = {
    "masked": Input(encoder="student", parts={"image": Part(of="view2", hide=Random(ratio=0.15), mode="drop")})
} | local_inputs(10)

MSN = Method(
    name="msn",
    cite="MSN, arXiv:2204.07141 sec. 3 (each image has its own hidden cells, where the released code has one choice "
    "for a batch; batch norm of the head sees each anchor by itself, where that sees all eleven at once)",
    encoders={
        "student": Trained(),
        "average": Ema(of="student", momentum=0.996, path="line", over=1.25, when="after", buffers="own"),
    },
    views={"view1": _ANCHORED, "view2": _ANCHORED} | local_views(10, Crop(size=96, scale=(0.05, 0.3), colour=_ANCHOR)),
    inputs=_ANCHORS,
    terms=pairs(_ANCHORS, ("view1",), dataclasses.replace(_CODES, likelihood=Prototypes())),
    projectors={"head": Mlp(hidden=2048, depth=3, out=256, norm="batch")},
)

DINO = dino(8, split=0.4)
IBOT = ibot(10, split=0.32)

ROWS = (IBOT, DINO, MSN)
