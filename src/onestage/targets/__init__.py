"""f_phi: what has to be explained. The closed union of what a term's target may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.targets.encoded import Encoded, EncodedTarget
from onestage.targets.hog import Hog, HogTarget
from onestage.targets.pixels import Pixels, PixelsTarget
from onestage.targets.rows import RowsWanted, wanted_cells
from onestage.targets.table import Table, TableTarget
from onestage.targets.words import Spelled, SpelledTarget

OfPixels = Pixels | Hog
"""Targets that are made of a view's pixels alone."""
TargetSpec = Annotated[Pixels | Hog | Encoded | Table | Spelled, Discriminator("kind")]

__all__ = [
    "Encoded",
    "EncodedTarget",
    "Hog",
    "HogTarget",
    "OfPixels",
    "Pixels",
    "PixelsTarget",
    "RowsWanted",
    "Spelled",
    "SpelledTarget",
    "Table",
    "TableTarget",
    "TargetSpec",
    "wanted_cells",
]
