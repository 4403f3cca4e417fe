"""THE TABLE: every published method as a row. A row is one declaration, in the `ROWS` of its family's module."""

from __future__ import annotations

from onestage.methods import (
    all_in_one,
    attentive,
    coded,
    contrastive,
    distilled,
    inter_view,
    intra_view,
    masked,
    multi_crop,
    multimodal,
    siamese,
    supervised,
)
from onestage.objective import Method

_FAMILIES = (
    supervised,
    contrastive,
    distilled,
    masked,
    attentive,
    coded,
    multimodal,
    intra_view,
    inter_view,
    multi_crop,
    siamese,
    all_in_one,
)

METHODS: dict[str, Method] = {row.name: row for family in _FAMILIES for row in family.ROWS}

__all__ = ["METHODS"]
