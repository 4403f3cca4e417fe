"""What is drawn for one sample of a batch, before its views are cut and after: plans, hidden cells, text and label."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onestage.objective import Method
from onestage.objective.mix import partner
from onestage.roles import Hide, HideLater, HideText, Picture, Plan
from onestage.sample import Clip
from onestage.spec import UserError
from onestage.teachers.serving import Marked
from onestage.types import Blended, Grid, Mark, View
from onestage.views import Crop, blend

Random = Callable[[str], np.random.Generator]
"""The generator of a sample for a purpose."""


class Drawn(NamedTuple):
    """One sample of a batch, but for its pixels: its views' plans, its hidden cells, text, label, and where the
    teachers' answers for its views are kept. In a mixture, its source may have no texts or no labels: then there is no
    text, or the label is -1."""

    plans: dict[str, Plan]
    hidden: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    text: str | None
    label: int
    marks: dict[str, Marked]


class Begun(NamedTuple):
    """A sample of a batch that is not cut yet."""

    picture: Picture
    clip: Clip | None
    drawn: Drawn


def hidden_of(method: Method, grids: dict[str, Grid], random: Random, copy: int) -> dict[str, np.ndarray]:
    """The hidden cells of every input; those of copy 0 of a view are what they are where it has no copies."""
    hides = {
        f"{name}/{key}": (part.hide, asked.encoder)
        for name, asked in method.inputs.items()
        for key, part in asked.parts.items()
    }
    hides |= {name: (asked.mix, asked.encoder) for name, asked in method.inputs.items()}
    again = f"/{copy}" if copy else ""
    return {
        key: hide.draw(random(f"hide/{key}{again}"), grids[encoder])
        for key, (hide, encoder) in hides.items()
        if isinstance(hide, Hide)
    }


def noise_of(method: Method, grids: dict[str, Grid], random: Random, copy: int) -> dict[str, np.ndarray]:
    """What hiding draws by that waits for a teacher's answer, or for the numbers of words."""
    again = f"/{copy}" if copy else ""
    drawn = {}
    for name, asked in method.inputs.items():
        for key, part in asked.parts.items():
            if isinstance(part.hide, HideLater):
                drawn[f"{name}/{key}"] = part.hide.noise(random(f"hide/{name}/{key}{again}"), grids[asked.encoder])
            elif isinstance(part.hide, HideText):
                drawn[f"{name}/{key}"] = part.hide.noise(random(f"hide/{name}/{key}{again}"))
    return drawn


def blended(
    method: Method, views: dict[str, View], label: Tensor | None, random: Callable[[str], np.random.Generator]
) -> dict[str, Blended]:
    """Blend the views that are blended, in place; what each sample's label then is.

    Args:
        random: the generator of the batch for a purpose: all samples of all ranks are blended alike.

    Raises:
        UserError: when a sample has no partner.
    """
    found: dict[str, Blended] = {}
    for name, made in method.views.items():
        if not isinstance(made, Crop) or made.blend is None:
            continue
        pixels = views[name].pixels
        if len(pixels) % 2:
            raise UserError(f"views.{name}.blend: samples are blended in pairs, but a batch has {len(pixels)}")
        how = made.blend.draw(random(f"blend/{name}"), pixels.shape[-1])
        blend(pixels, how)
        if label is not None:
            found[name] = Blended(torch.full(label.shape, how.share), partner(label))
    return found


def marks_of(drawn: list[Drawn]) -> dict[str, Mark] | None:
    """Where the answers for the views of a batch are kept."""
    names = drawn[0].marks
    if not names:
        return None
    return {
        name: Mark(
            torch.tensor([one.marks[name].place for one in drawn]), torch.tensor([one.marks[name].key for one in drawn])
        )
        for name in names
    }
