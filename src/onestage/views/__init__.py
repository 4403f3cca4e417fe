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
from onestage.views.frames import Frames
from onestage.views.hiding import Block, BlockReversed, Random, Tube, Units, block_wise, coverage
from onestage.views.resize import Resize
from onestage.views.sampled import Sampled
from onestage.views.words import SomeWords

ViewSpec = Annotated[Crop | Resize, Field(discriminator="kind")]
"""Every view a recipe can name."""

DrawnSpec = Annotated[Random | Block | BlockReversed | Units | Tube, Field(discriminator="kind")]
"""Every way of hiding that needs nothing but the grid."""

HideSpec = Annotated[
    Random | Block | BlockReversed | Units | Tube | Sampled | Attentive | SomeWords, Field(discriminator="kind")
]
"""Every way of hiding a recipe can name."""


def shape_of(view: ViewSpec) -> tuple[int, int]:
    """Height and width of a view, in pixels: of a clip, its frames lie one below another."""
    assert view.size is not None, "a recipe fills in the sizes of its views before training"
    return view.size * (1 if view.frames is None else view.frames.count), view.size


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
    "Frames",
    "HideSpec",
    "RandAugment",
    "Random",
    "Resize",
    "Sampled",
    "SomeWords",
    "ThreeAugment",
    "Tube",
    "Units",
    "ViewSpec",
    "blend",
    "block_wise",
    "coverage",
    "shape_of",
]
