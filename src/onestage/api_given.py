"""A recipe from what a user gives: a name, a file or a value, and settings beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage import recipes as named
from onestage.objective import Frozen
from onestage.pretraining import Recipe
from onestage.spec import UserError, from_plain, parse_scalar, replace_leaf, to_plain

Given = str | Path | Recipe


def make_recipe(
    recipe: Given,
    *,
    data: str | None = None,
    val: str | None = None,
    teacher: str | None = None,
    init: str | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe by name, file or value, with what was given beside it.

    Raises:
        UserError: when it is unknown, a setting leads nowhere, or a value does not fit.
    """
    base = recipe if isinstance(recipe, Recipe) else named.recipe(str(recipe))
    plain = to_plain(base)
    given = {"data": data, "val": val, "init": init}
    plain |= {name: value for name, value in given.items() if value is not None}
    if steps is not None:
        plain |= {"steps": steps, "epochs": None}
    if teacher is not None:
        plain["teachers"] = _teachers(base, teacher)
    for path, value in (settings or {}).items():
        replace_leaf(plain, path, parse_scalar(value) if isinstance(value, str) else value)
    return from_plain(Recipe, plain)


def _teachers(recipe: Recipe, reference: str) -> dict[str, str]:
    frozen = recipe.method.named(Frozen)
    if not frozen:
        raise UserError(f"--teacher {reference}: method {recipe.method.name} learns from no teacher")
    if len(frozen) > 1:
        raise UserError(
            f"--teacher: this method has the teachers {', '.join(frozen)}; set each with --teachers.NAME REF"
        )
    return {frozen[0]: reference}
