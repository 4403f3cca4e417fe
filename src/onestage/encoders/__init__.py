"""f_theta: backbones and projectors. The closed union of what a recipe's `models` may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.encoders.aggregation import Aggregation
from onestage.encoders.clip import ClipImage, ClipText
from onestage.encoders.convnext import ConvNext
from onestage.encoders.multiway import Multiway
from onestage.encoders.projectors import Blocks, Codes, Mlp
from onestage.encoders.regressor import Regressor
from onestage.encoders.second import Second
from onestage.encoders.swin import Swin
from onestage.encoders.vit import Vit

EncoderSpec = Annotated[Vit | Swin | ConvNext | ClipImage | ClipText | Multiway, Discriminator("kind")]
ProjectorSpec = Annotated[Blocks | Codes | Mlp | Aggregation | Regressor | Second, Discriminator("kind")]
"""What may stand between a backbone and a term."""

__all__ = [
    "Aggregation",
    "Blocks",
    "ClipImage",
    "ClipText",
    "Codes",
    "ConvNext",
    "EncoderSpec",
    "Mlp",
    "Multiway",
    "ProjectorSpec",
    "Regressor",
    "Second",
    "Swin",
    "Vit",
]
