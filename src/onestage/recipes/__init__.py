"""Recipes by name: paper-size ones are functions, tiny ones are derived from the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onestage.methods import METHODS
from onestage.pretraining import Recipe
from onestage.recipes.paper import mae_b16, mvp_b16, mvp_l16, uta_b14, uta_g14, uta_l14
from onestage.recipes.tiny import tiny
from onestage.spec import UserError, from_plain, read_yaml, suggest

PAPER: dict[str, Callable[[], Recipe]] = {
    "mae_b16": mae_b16,
    "mvp_b16": mvp_b16,
    "mvp_l16": mvp_l16,
    "uta_b14": uta_b14,
    "uta_l14": uta_l14,
    "uta_g14": uta_g14,
}


def names() -> list[str]:
    """Every recipe that has a name; a tiny one also takes `:smoke` for its shorter budget."""
    return [f"{row}_tiny" for row in METHODS] + list(PAPER)


def recipe(name: str) -> Recipe:
    """A recipe by its name or from a YAML file.

    Raises:
        UserError: when there is no such recipe (with the nearest name), or the file is not one.
    """
    if name.endswith((".yaml", ".yml")):
        return from_plain(Recipe, read_yaml(Path(name)), name)
    base, _, budget = name.partition(":")
    if base in PAPER and not budget:
        return PAPER[base]()
    row = base.removesuffix("_tiny")
    if base.endswith("_tiny") and row in METHODS and budget in {"", "smoke", "demo"}:
        return tiny(METHODS[row], "smoke" if budget == "smoke" else "demo")
    raise UserError(f"there is no recipe '{name}'{suggest(name, names())} Type onestage ls recipes to see them all.")


__all__ = ["PAPER", "names", "recipe", "tiny"]
