"""Siamese methods as they were published: a view of an image explains another view (M3I, arXiv:2211.09807, table 1,
row i and its kin).

Those that were published for a ResNet stand here on a ViT's class token, with MoCo v3's recipe where there is none.
"""

from __future__ import annotations

import dataclasses

from onestage.encoders import Mlp
from onestage.likelihood import Boltzmann, CrossCorrelation, Gaussian
from onestage.methods.settings import VIEWS
from onestage.objective import Ema, Input, Method, Part, Term, Trained
from onestage.predictors import MLP, Same
from onestage.targets import Encoded
from onestage.views import Colour, Crop

ONE = {"one": Input(encoder="student", parts={"image": Part(of="view1")})}
TWO = ONE | {"two": Input(encoder="student", parts={"image": Part(of="view2")})}
AVERAGE = Encoded(encoder="average", rows="pooled", space="raw")

_MOCO = Crop(scale=(0.2, 1.0), colour=Colour(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2, blur=0.5))


def both(likelihood: Boltzmann | Gaussian, predictor: MLP | Same, weight: float) -> dict[str, Term]:
    """Each view explains the average's pooled row of the other, by one predictor."""
    one = Term(
        x="one",
        y="view2",
        target=AVERAGE,
        predictor=predictor,
        likelihood=likelihood,
        weight=weight,
        projector="head",
    )
    return {"one": one, "two": dataclasses.replace(one, x="two", y="view1", shares="one")}


MOCO_V2 = Method(
    name="moco_v2",
    cite="MoCo v2, arXiv:2003.04297 (published for ResNet-50)",
    encoders={
        "student": Trained(),
        "average": Ema(of="student", momentum=0.999, end=0.999, when="before", buffers="own"),
    },
    views={"view1": _MOCO, "view2": _MOCO},
    inputs=ONE,
    terms={
        "key": Term(
            x="one",
            y="view2",
            target=AVERAGE,
            predictor=Same(),
            likelihood=Boltzmann(over="queue", temperature=0.2, size=65536),
            projector="head",
        )
    },
    projectors={"head": Mlp(hidden=2048, depth=2, out=128, activation="relu")},
)

_CELLS = Term(
    x="one",
    y="view2",
    target=Encoded(encoder="average", rows="all", space="raw"),
    predictor=Same(),
    likelihood=Boltzmann(over="queue", temperature=0.2, size=65536),
    weight=0.5,
    projector="dense",
    match="nearest",
)

DENSECL = Method(
    name="densecl",
    cite="DenseCL, arXiv:2011.09157 sec. 3 (published for ResNet-50; both losses weigh a half from the first step on, "
    "where the released code offers to begin with the global one alone)",
    encoders=MOCO_V2.encoders,
    views=MOCO_V2.views,
    inputs=ONE,
    terms={"key": dataclasses.replace(MOCO_V2.terms["key"], weight=0.5), "cells": _CELLS},
    projectors=MOCO_V2.projectors | {"dense": Mlp(hidden=2048, depth=2, out=128, of="rows", activation="relu")},
)

MOCO_V3 = Method(
    name="moco_v3",
    cite="MoCo v3, arXiv:2104.02057 sec. 3 (each direction weighs 2 tau)",
    encoders={"student": Trained(), "average": Ema(of="student", momentum=0.99, when="before", buffers="own")},
    views=VIEWS,
    inputs=TWO,
    terms=both(
        Boltzmann(over="batch", temperature=0.2, temperature_is="fixed", sides="guess"),
        MLP(hidden=4096, depth=2, activation="relu", norm="batch", end="batch"),
        weight=2 * 0.2,
    ),
    projectors={"head": Mlp(hidden=4096, depth=3, out=256, activation="relu", norm="batch", end="batch")},
)

BYOL = Method(
    name="byol",
    cite="BYOL, arXiv:2006.07733 sec. 3 (published for ResNets; 2 - 2 cos in each direction)",
    encoders={"student": Trained(), "average": Ema(of="student", momentum=0.996, when="after", buffers="own")},
    views=VIEWS,
    inputs=TWO,
    terms=both(
        Gaussian(form="cosine"), MLP(hidden=4096, depth=2, activation="relu", norm="batch", end="plain"), weight=2.0
    ),
    projectors={"head": Mlp(hidden=4096, depth=2, out=256, activation="relu", norm="batch", end="plain")},
)

BARLOW_TWINS = Method(
    name="barlow_twins",
    cite="Barlow Twins, arXiv:2103.03230 sec. 2 (published for ResNet-50)",
    encoders={"student": Trained()},
    views=VIEWS,
    inputs=ONE,
    terms={
        "twins": Term(
            x="one",
            y="view2",
            target=Encoded(encoder="student", rows="pooled", space="raw"),
            predictor=Same(),
            likelihood=CrossCorrelation(off_diagonal=0.0051),
            projector="head",
        )
    },
    projectors={"head": Mlp(hidden=8192, depth=3, out=8192, activation="relu", norm="batch", end="plain")},
)

ROWS = (MOCO_V2, DENSECL, MOCO_V3, BYOL, BARLOW_TWINS)
