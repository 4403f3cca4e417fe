"""What the bench of the table trains: rows, sums of rows, and each of them with other values of a setting."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from onestage.encoders import EncoderSpec, Vit
from onestage.methods import METHODS
from onestage.objective import Frozen, Method, asks
from onestage.pretraining import Chain, Recipe, Stage, Watch
from onestage.recipes import rows_of
from onestage.recipes.chains import CHAINS, tiny_chain
from onestage.recipes.tiny import VIT, tiny
from onestage.roles import Space
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


def fixed_chain(
    variant: Variant, steps: int, seed: int, data: tuple[str, str], probed: int, settings: Mapping[str, str] = NONE
) -> Chain:
    """A declared chain of `steps` in all, with the backbone and settings that all rows have, and probed as they are.

    Args:
        data: what is learned from, and what is judged on.

    Raises:
        UserError: when a setting is to vary, or one leads nowhere.
    """
    if variant.setting is not None:
        raise UserError(f"bench table: --vary changes a setting of a row, and {variant.row} is a chain of rows")
    train, val = data

    def changed(stage: Stage) -> Recipe:
        models = {name: _backbone(model) for name, model in stage.recipe.models.items()}
        made = dataclasses.replace(stage.recipe, models=models, seed=seed, watch=Watch(), data=train, val=val)
        return _with(made, settings)

    made = tiny_chain(variant.row, "demo").each(changed).lasting(steps)
    return dataclasses.replace(made, name=variant.row, probed=probed)


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
    variant: Variant,
    steps: int,
    seed: int,
    data: str,
    teacher: str | None,
    settings: Mapping[str, str] = NONE,
    codes: str | None = None,
    categories: str | None = None,
) -> Recipe:
    """A row with its own views, targets and likelihoods, and the backbone, length and settings that all rows have.

    Args:
        teacher: what its frozen encoders are.
        codes: what those of them are whose codes are explained.
        categories: what those of them are whose categories are explained.

    Raises:
        UserError: when a setting leads nowhere or its value does not fit.
    """
    made = tiny(weighted(variant.row), "demo")
    models = {name: _backbone(model) for name, model in made.models.items()}
    given = dict.fromkeys(read_for(made.method, "codes"), codes)
    given |= dict.fromkeys(read_for(made.method, "categories"), categories)
    teachers = {name: given.get(name, teacher) or "" for name in made.method.named(Frozen)}
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


def methods_of(row: str) -> list[Method]:
    """The methods of a row, of a sum of rows, or of the stages of a chain.

    Raises:
        UserError: when there is no such row.
    """
    if row in CHAINS:
        return [METHODS[link.row] for link in CHAINS[row].links]
    return [method for _, method in weighted(row)]


def needs_teacher(row: str) -> bool:
    """Whether a row needs a frozen teacher from outside: a chain makes its own."""
    return row not in CHAINS and any(
        set(method.named(Frozen)) - read_for(method, "codes") - read_for(method, "categories")
        for method in methods_of(row)
    )


def needs_codes(row: str) -> bool:
    """Whether a row explains the codes of a frozen code book."""
    return row not in CHAINS and any(method.needs_codes for method in methods_of(row))


def needs_categories(row: str) -> bool:
    """Whether a row explains the categories of a frozen classifier."""
    return row not in CHAINS and any(method.needs_categories for method in methods_of(row))


def read_for(method: Method, space: Space) -> set[str]:
    """The frozen encoders whose answers in a space a method explains."""
    return {ask.encoder for ask in asks(method) if ask.space == space}


def weighted(row: str) -> list[tuple[float, Method]]:
    """A row or a sum of rows as weighted methods.

    Raises:
        UserError: when there is no such row.
    """
    rows = rows_of(row)
    if not rows:
        raise UserError(f"bench table: '{row}' is no row, sum of rows or chain{suggest(row, [*METHODS, *CHAINS])}")
    return rows
