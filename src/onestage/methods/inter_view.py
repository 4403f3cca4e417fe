"""Inter-view self-supervision: a view explains another view (M3I, arXiv:2211.09807, table 1, rows g to l)."""

from __future__ import annotations

from onestage.encoders import Blocks
from onestage.methods.settings import (
    ALONE,
    AMONG_CELLS,
    AMONG_IMAGES,
    AVERAGED,
    PLACED,
    SIAMESE,
    VIEWS,
    features,
    image,
    pixels,
    sees,
)
from onestage.objective import Ema, Method, Term, Trained
from onestage.targets import Encoded

NOVEL_VIEW = Method(
    name="novel_view",
    cite="M3I, arXiv:2211.09807 table 1 row g (novel view synthesis)",
    encoders=ALONE,
    views=VIEWS,
    inputs=sees("view2"),
    terms=pixels(PLACED),
)

DENSE_INSTANCE = Method(
    name="dense_instance",
    cite="M3I, arXiv:2211.09807 table 1 row h (DenseCL, arXiv:2011.09157, matches by nearest features instead)",
    encoders=AVERAGED,
    views=VIEWS,
    inputs=sees("view2"),
    terms={
        "cells": Term(
            x="image",
            y="view1",
            target=Encoded(encoder="average", rows="all", space="raw"),
            predictor=PLACED,
            likelihood=AMONG_CELLS,
        )
    },
)

INSTANCE = Method(
    name="instance",
    cite="M3I, arXiv:2211.09807 table 1 row i (MoCo v3, arXiv:2104.02057, in one direction)",
    encoders=AVERAGED,
    views=VIEWS,
    inputs=sees("view2"),
    terms=image(AMONG_IMAGES),
)

SIAMESE_PIXEL = Method(
    name="siamese_pixel",
    cite="M3I, arXiv:2211.09807 table 1 row j",
    encoders=ALONE,
    views=VIEWS,
    inputs=sees("view2", SIAMESE),
    terms=pixels(PLACED),
)

OWN_STATISTICS = Ema(of="student", momentum=0.995, end=1.0, when="before", buffers="own")
"""SiameseIM's target encoder with its projector, whose batch norms see the batch."""

SIAMESE_FEATURE = Method(
    name="siamese_feature",
    cite="SiameseIM, arXiv:2206.01204 sec. 3, with its projector; M3I, arXiv:2211.09807 table 1 row k",
    encoders={"student": Trained(), "average": OWN_STATISTICS},
    views=VIEWS,
    inputs=sees("view2", SIAMESE),
    terms=features(PLACED, projector="blocks"),
    projectors={"blocks": Blocks(depth=2, heads=12)},
)

INSTANCE_MASKED = Method(
    name="instance_masked",
    cite="M3I, arXiv:2211.09807 table 1 row l (MSN, arXiv:2204.07141, has prototypes instead)",
    encoders=AVERAGED,
    views=VIEWS,
    inputs=sees("view2", SIAMESE),
    terms=image(AMONG_IMAGES),
)

ROWS = (NOVEL_VIEW, DENSE_INSTANCE, INSTANCE, SIAMESE_PIXEL, SIAMESE_FEATURE, INSTANCE_MASKED)
