"""THE TABLE: every published method as a row. A new row is one declaration here and one name below."""

from __future__ import annotations

from onestage.methods.all_in_one import M3I, M3I_BOTH, M3I_TEXT, M3I_UNMIXED, MIXMIM
from onestage.methods.contrastive import CLIP
from onestage.methods.distilled import FD, UTA
from onestage.methods.inter_view import (
    DENSE_INSTANCE,
    INSTANCE,
    INSTANCE_MASKED,
    NOVEL_VIEW,
    SIAMESE_FEATURE,
    SIAMESE_PIXEL,
)
from onestage.methods.intra_view import (
    AUTO_ENCODER,
    DENSE_DISTILLATION,
    GLOBAL_DISTILLATION,
    MIM_FEATURE,
    MIM_GLOBAL,
    MIM_PIXEL,
)
from onestage.methods.masked import DATA2VEC, EVA, MAE, MASKFEAT, MVP, SIMMIM
from onestage.methods.supervised import SUPERVISED
from onestage.objective import Method

_SUPERVISED = (SUPERVISED, CLIP)
_DISTILLED = (FD, MAE, SIMMIM, MASKFEAT, DATA2VEC, EVA, MVP, UTA)
_INTRA_VIEW = (AUTO_ENCODER, DENSE_DISTILLATION, GLOBAL_DISTILLATION, MIM_PIXEL, MIM_FEATURE, MIM_GLOBAL)
_INTER_VIEW = (NOVEL_VIEW, DENSE_INSTANCE, INSTANCE, SIAMESE_PIXEL, SIAMESE_FEATURE, INSTANCE_MASKED)
_ALL_IN_ONE = (M3I, M3I_TEXT, M3I_BOTH, M3I_UNMIXED, MIXMIM)

METHODS: dict[str, Method] = {
    row.name: row for row in (*_SUPERVISED, *_DISTILLED, *_INTRA_VIEW, *_INTER_VIEW, *_ALL_IN_ONE)
}

__all__ = ["CLIP", "EVA", "FD", "MAE", "METHODS", "MVP", "SUPERVISED", "UTA"]
