"""What the bench of the table trains: rows, sums of rows, and each of them with other values of a setting."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from onestage.encoders import EncoderSpec, Vit
from onestage.methods import METHODS
from onestage.objective import Frozen, Method
from onestage.pretraining import Recipe, Watch
from onestage.recipes import rows_of
from onestage.recipes.tiny import VIT, tiny
from onestage.spec import UserError, from_plain, parse_scalar, replace_leaf, suggest, to_plain

NONE: Mapping[str, str] = {}


class Variant(NamedTuple):
    """A row or sum of rows, and a setting of its recipe with the value that it is to have."""

    row: str
    setting: str | None = None
    value: str | None = None

    @property
    def name(self) -> str:
        """What results are written under: `uta`, or `uta ratio=0.5`."""
        if self.setting is None:
            return self.row
        return f"{self.row} {self.setting.rpartition('.')[2]}={self.value}"

    @property
    def folder(self) -> str:
        """The name without what file systems dislike."""
        return re.sub(r"[^\w.+*=-]+", "_", self.name).strip("_")


def variants(rows: list[str], vary: str | None) -> list[Variant]:
    """Every row, or with `PATH=VALUE|VALUE|...` every row with each value.

    Raises:
        UserError: when `vary` is not of that form.
    """
    if vary is None:
        return [Variant(row) for row in rows]
    setting, _, values = vary.partition("=")
    named = [value.strip() for value in values.split("|")]
    if not setting.strip() or not all(named):
        raise UserError(f"bench table: --vary '{vary}' is not PATH=VALUE|VALUE, such as {EXAMPLE}")
    return [Variant(row, setting.strip(), value) for row in rows for value in named]


EXAMPLE = "method.inputs.kept.parts.image.hide.ratio=0.4|0.5"


def shared(settings: str | None) -> dict[str, str]:
    """The settings that all rows have, from `PATH=VALUE|PATH=VALUE|...`.

    Raises:
        UserError: when they are not of that form, or one of them stands twice.
    """
    found: dict[str, str] = {}
    for one in settings.split("|") if settings else ():
        path, _, value = (part.strip() for part in one.partition("="))
        if not path or not value:
            raise UserError(f"bench table: --set '{one}' is not PATH=VALUE, such as models.student.patch=4")
        if path in found:
            raise UserError(f"bench table: --set has {path} twice")
        found[path] = value
    return found


def fixed(
    variant: Variant, steps: int, seed: int, data: str, teacher: str | None, settings: Mapping[str, str] = NONE
) -> Recipe:
    """A row with its own views, targets and likelihoods, and the backbone, length and settings that all rows have.

    Raises:
        UserError: when a setting leads nowhere or its value does not fit.
    """
    made = tiny(weighted(variant.row), "demo")
    models = {name: _backbone(model) for name, model in made.models.items()}
    teachers = dict.fromkeys(made.method.named(Frozen), teacher or "")
    made = dataclasses.replace(made, models=models, steps=steps, seed=seed, watch=Watch(), data=data, teachers=teachers)
    return _with(made, {**settings, **({} if variant.setting is None else {variant.setting: variant.value})})


def _with(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    plain = to_plain(recipe)
    for path, value in settings.items():
        replace_leaf(plain, path, parse_scalar(value))
    return from_plain(Recipe, plain) if settings else recipe


def _backbone(model: EncoderSpec) -> EncoderSpec:
    """One width, depth and stem for all; the grid is the teacher's where there is one. Texts have their own tower."""
    if not isinstance(model, Vit):
        return model
    return dataclasses.replace(model, width=VIT.width, depth=VIT.depth, heads=VIT.heads, stem="patch")


def weighted(row: str) -> list[tuple[float, Method]]:
    """A row or a sum of rows as weighted methods.

    Raises:
        UserError: when there is no such row.
    """
    rows = rows_of(row)
    if not rows:
        raise UserError(f"bench table: '{row}' is no row or sum of rows{suggest(row, list(METHODS))}")
    return rows
