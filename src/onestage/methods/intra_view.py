"""Intra-view self-supervision: a view explains itself (M3I, arXiv:2211.09807, table 1, rows a to f)."""

from __future__ import annotations

from onestage.likelihood import Gaussian
from onestage.methods.settings import (
    ALONE,
    AMONG_IMAGES,
    AVERAGED,
    DECORRELATED,
    GRID,
    MASKED,
    ONE_VIEW,
    SIAMESE,
    features,
    image,
    pixels,
    sees,
)
from onestage.objective import Method
from onestage.predictors import Linear
from onestage.targets import Pixels

AUTO_ENCODER = Method(
    name="auto_encoder",
    cite="M3I, arXiv:2211.09807 table 1 row a (it can be solved without learning anything: a control)",
    encoders=ALONE,
    views=ONE_VIEW,
    inputs=sees("view1"),
    terms=pixels(Linear()),
)

DENSE_DISTILLATION = Method(
    name="dense_distillation",
    cite="M3I, arXiv:2211.09807 table 1 row b, with the student's own average as its teacher (FD has a frozen one)",
    encoders=AVERAGED,
    views=ONE_VIEW,
    inputs=sees("view1"),
    terms=features(Linear(), regulariser=None),
)

GLOBAL_DISTILLATION = Method(
    name="global_distillation",
    cite="M3I, arXiv:2211.09807 table 1 row c",
    encoders=AVERAGED,
    views=ONE_VIEW,
    inputs=sees("view1"),
    terms=image(AMONG_IMAGES),
)

MIM_PIXEL = Method(
    name="mim_pixel",
    cite="M3I, arXiv:2211.09807 table 1 row d (MAE, arXiv:2111.06377, under the table's common decoder)",
    encoders=ALONE,
    views=ONE_VIEW,
    inputs=sees("view1", MASKED),
    terms=pixels(GRID, Pixels(rows="hidden", norm="patch")),
)

MIM_FEATURE = Method(
    name="mim_feature",
    cite="M3I, arXiv:2211.09807 table 1 row e (data2vec, arXiv:2202.03555, is its best-known relative)",
    encoders=AVERAGED,
    views=ONE_VIEW,
    inputs=sees("view1", SIAMESE),
    terms=features(GRID),
)

MIM_GLOBAL = Method(
    name="mim_global",
    cite="M3I, arXiv:2211.09807 table 1 row f",
    encoders=AVERAGED,
    views=ONE_VIEW,
    inputs=sees("view1", SIAMESE),
    terms=image(Gaussian(form="cosine"), DECORRELATED),
)

ROWS = (AUTO_ENCODER, DENSE_DISTILLATION, GLOBAL_DISTILLATION, MIM_PIXEL, MIM_FEATURE, MIM_GLOBAL)
