"""All-in-one pre-training: two mixed images, four targets, one pass (M3I, arXiv:2211.09807, section 3.3 and figure 2).

The first image predicts its own view, the second another view of itself, and both their category or their text. Which
share of cells is mixed, whether heads are shared, and the weights are not published: half of the cells (so that both
images keep the same number of rows), one head a term and equal weights are assumed.
"""

from __future__ import annotations

from onestage.likelihood import Boltzmann, Gaussian
from onestage.methods.settings import ALONE, AVERAGED, DECORRELATED, FEATURES, GRID, ONE_VIEW, PLACED, SIAMESE, VIEWS
from onestage.objective import EncoderRole as Role
from onestage.objective import Input, Method, Part, Term, Trained
from onestage.predictors import MLP
from onestage.predictors import PredictorSpec as Predictor
from onestage.targets import Encoded, Pixels, Table
from onestage.views import Block, Random

HALF = Block(cells=98, of=196)
MIXED = {
    "mixed": Input(encoder="student", parts={"first": Part(of="view1"), "second": Part(of="view1")}, mix=HALF),
}
APART = {
    "first": Input(encoder="student", parts={"image": Part(of="view1", hide=SIAMESE, mode="drop")}),
    "second": Input(encoder="student", parts={"image": Part(of="view1", hide=SIAMESE, mode="drop")}),
}
WITH_TEXT: dict[str, Role] = AVERAGED | {"text": Trained()}


def dense(x: str, y: str, predictor: Predictor) -> Term:
    """An image explains the averaged encoder's rows of a view."""
    return Term(
        x=x,
        y=y,
        target=FEATURES,
        predictor=predictor,
        likelihood=Gaussian(form="squared"),
        regulariser=DECORRELATED,
    )


def category(x: str) -> Term:
    """An image explains its category."""
    return Term(x=x, y="label", target=Table(), predictor=MLP(), likelihood=Boltzmann(over="table", smoothing=0.1))


def text(x: str) -> Term:
    """An image explains its text."""
    return Term(
        x=x,
        y="text",
        target=Encoded(encoder="text", rows="pooled"),
        predictor=MLP(),
        likelihood=Boltzmann(over="batch", temperature_is="learned"),
    )


def dense_pair(first: str, second: str) -> dict[str, Term]:
    """The self-supervised half: the first image its own view, the second another view of itself."""
    return {"own": dense(first, "view1", GRID), "other": dense(second, "view2", PLACED)}


M3I = Method(
    name="m3i",
    cite="M3I, arXiv:2211.09807 sec. 3.3 and fig. 2, with categories",
    encoders=AVERAGED,
    views=VIEWS,
    inputs=MIXED,
    terms=dense_pair("mixed/first", "mixed/second")
    | {"category1": category("mixed/first"), "category2": category("mixed/second")},
)

M3I_TEXT = Method(
    name="m3i_text",
    cite="M3I, arXiv:2211.09807 sec. 3.3, with texts (its YFCC-15M setting)",
    encoders=WITH_TEXT,
    views=VIEWS,
    inputs=MIXED,
    terms=dense_pair("mixed/first", "mixed/second") | {"text1": text("mixed/first"), "text2": text("mixed/second")},
)

M3I_BOTH = Method(
    name="m3i_both",
    cite="M3I, arXiv:2211.09807 sec. 4.2, with categories and texts from a mixture of sources (its 1B model)",
    encoders=WITH_TEXT,
    views=VIEWS,
    inputs=MIXED,
    terms=M3I.terms | {"text1": text("mixed/first"), "text2": text("mixed/second")},
)

M3I_UNMIXED = Method(
    name="m3i_unmixed",
    cite="M3I, arXiv:2211.09807 table 2, without mix: each image masked and encoded by itself",
    encoders=AVERAGED,
    views=VIEWS,
    inputs=APART,
    terms=dense_pair("first", "second") | {"category1": category("first"), "category2": category("second")},
)

MIXMIM = Method(
    name="mixmim",
    cite="MixMIM, arXiv:2205.13137 sec. 3.2 (on a ViT; its Swin and its one mask for the whole batch are not here)",
    encoders=ALONE,
    views=ONE_VIEW,
    inputs={
        "mixed": Input(
            encoder="student",
            parts={"first": Part(of="view1"), "second": Part(of="view1")},
            mix=Random(ratio=0.5),
            attention="own",
        )
    },
    terms={
        name: Term(
            x=f"mixed/{name}",
            y="view1",
            target=Pixels(rows="hidden", norm="patch"),
            predictor=GRID,
            likelihood=Gaussian(form="squared"),
        )
        for name in ("first", "second")
    },
)

ROWS = (M3I, M3I_TEXT, M3I_BOTH, M3I_UNMIXED, MIXMIM)
