"""t_x and t_y: how a view is cut from a sample, and which cells of its grid an input withholds.

A view has two phases: `plan` draws its geometry and colour before anything is decoded, `apply` makes the
pixels. Every parameter is drawn here from a numpy generator; every pixel is made by torchvision's functional
transforms.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from onestage.views.attentive import Attentive
from onestage.views.augment import AugmentSpec, Erase, RandAugment, ThreeAugment
from onestage.views.blend import Blend, Blending, blend
from onestage.views.colour import Colour
from onestage.views.crop import Crop
from onestage.views.hiding import Block, BlockReversed, Random, Units, block_wise, coverage
from onestage.views.resize import Resize
from onestage.views.sampled import Sampled
from onestage.views.words import SomeWords

ViewSpec = Annotated[Crop | Resize, Field(discriminator="kind")]
"""Every view a recipe can name."""

DrawnSpec = Annotated[Random | Block | BlockReversed | Units, Field(discriminator="kind")]
"""Every way of hiding that needs nothing but the grid."""

HideSpec = Annotated[
    Random | Block | BlockReversed | Units | Sampled | Attentive | SomeWords, Field(discriminator="kind")
]
"""Every way of hiding a recipe can name."""

__all__ = [
    "Attentive",
    "AugmentSpec",
    "Blend",
    "Blending",
    "Block",
    "BlockReversed",
    "Colour",
    "Crop",
    "DrawnSpec",
    "Erase",
    "HideSpec",
    "RandAugment",
    "Random",
    "Resize",
    "Sampled",
    "SomeWords",
    "ThreeAugment",
    "Units",
    "ViewSpec",
    "blend",
    "block_wise",
    "coverage",
]
