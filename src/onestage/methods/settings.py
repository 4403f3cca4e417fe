"""What the twelve self-supervised rows of M3I's table share: views, hiding, decoders and the averaged target encoder.

The setting is SiameseIM's (arXiv:2206.01204), which M3I names as its base; what M3I itself used is not published.
"""

from __future__ import annotations

from typing import Literal

from onestage.likelihood import Boltzmann, Gaussian, UniGrad
from onestage.objective import Ema, Input, Part, Term, Trained
from onestage.objective import EncoderRole as Role
from onestage.predictors import MLP, Decoder, Relative
from onestage.predictors import PredictorSpec as Predictor
from onestage.targets import Encoded, Pixels
from onestage.views import Block, Colour, Crop, Random
from onestage.views import ViewSpec as View

JITTER = Colour(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2, blur=1.0)
"""BYOL's first view (arXiv:2006.07733, table 6)."""
SOLARISED = Colour(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2, blur=0.1, solarize=0.2)
"""BYOL's second view."""
VIEWS: dict[str, View] = {
    "view1": Crop(scale=(0.08, 1.0), colour=JITTER),
    "view2": Crop(scale=(0.08, 1.0), colour=SOLARISED),
}
ONE_VIEW: dict[str, View] = {"view1": Crop(scale=(0.08, 1.0))}

AVERAGED: dict[str, Role] = {"student": Trained(), "average": Ema(of="student", momentum=0.995, end=1.0, when="before")}
"""SiameseIM's target encoder: 0.995 to 1 along a cosine, updated before the target is computed."""
ALONE: dict[str, Role] = {"student": Trained()}

SIAMESE = Block(cells=118, of=196)
"""SiameseIM's: 118 of 196 cells."""
MASKED = Random(ratio=0.75)
"""MAE's."""

GRID = Decoder(width=768, depth=4, heads=16)
PLACED = Relative(width=768, depth=4, heads=16)

PATCHES = Pixels(rows="all", norm="patch")
FEATURES = Encoded(encoder="average", rows="all", space="raw", norm="layer")
GLOBAL = Encoded(encoder="average", rows="pooled", space="raw")

DECORRELATED = UniGrad(weight=0.02)
AMONG_IMAGES = Boltzmann(over="batch", temperature=0.2, temperature_is="fixed", sides="guess")
AMONG_CELLS = Boltzmann(over="tokens", temperature=0.2)


def sees(view: str, hide: Block | Random | None = None) -> dict[str, Input]:
    """One input: a view, without what it hides."""
    mode: Literal["full", "drop"] = "full" if hide is None else "drop"
    return {"image": Input(encoder="student", parts={"image": Part(of=view, hide=hide, mode=mode)})}


def pixels(predictor: Predictor, target: Pixels = PATCHES) -> dict[str, Term]:
    """The input explains the pixels of view1."""
    return {
        "pixels": Term(x="image", y="view1", target=target, predictor=predictor, likelihood=Gaussian(form="squared"))
    }


def features(
    predictor: Predictor, regulariser: UniGrad | None = DECORRELATED, projector: str | None = None
) -> dict[str, Term]:
    """The input explains the averaged encoder's rows on view1."""
    return {
        "features": Term(
            x="image",
            y="view1",
            target=FEATURES,
            predictor=predictor,
            likelihood=Gaussian(form="squared"),
            regulariser=regulariser,
            projector=projector,
        )
    }


def image(likelihood: Gaussian | Boltzmann, regulariser: UniGrad | None = None) -> dict[str, Term]:
    """The input explains the averaged encoder's pooled row on view1."""
    return {
        "image": Term(
            x="image", y="view1", target=GLOBAL, predictor=MLP(), likelihood=likelihood, regulariser=regulariser
        )
    }
