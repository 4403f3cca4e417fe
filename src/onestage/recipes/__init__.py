"""Recipes by name: paper-size ones are functions, tiny ones are derived from the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from onestage.methods import METHODS
from onestage.objective import Method
from onestage.pretraining import Recipe
from onestage.recipes.attentive import ATTENTIVE_ROWS
from onestage.recipes.coded import CODED_ROWS
from onestage.recipes.contrastive import CONTRASTIVE_ROWS
from onestage.recipes.distilled import DISTILLED_ROWS
from onestage.recipes.guided import GUIDED_ROWS
from onestage.recipes.m3i import M3I_ROWS
from onestage.recipes.masked import MASKED_ROWS
from onestage.recipes.multi_crop import MULTI_CROP_ROWS
from onestage.recipes.multimodal import MULTIMODAL_ROWS
from onestage.recipes.paper import mae_b16, mvp_b16, mvp_l16, uta_b14, uta_g14, uta_l14
from onestage.recipes.siamese import SIAMESE_ROWS
from onestage.recipes.supervised import SUPERVISED_ROWS
from onestage.recipes.tiny import tiny
from onestage.recipes.tuned import TUNED_ROWS
from onestage.recipes.video import VIDEO_ROWS
from onestage.spec import UserError, from_plain, read_yaml, suggest, to_plain

FAMILIES = (
    *GUIDED_ROWS,
    *MASKED_ROWS,
    *VIDEO_ROWS,
    *DISTILLED_ROWS,
    *ATTENTIVE_ROWS,
    *CODED_ROWS,
    *MULTIMODAL_ROWS,
    *M3I_ROWS,
    *MULTI_CROP_ROWS,
    *SIAMESE_ROWS,
    *CONTRASTIVE_ROWS,
    *TUNED_ROWS,
    *SUPERVISED_ROWS,
)
"""The paper-size recipes that stand in lists of their own."""
PAPER: dict[str, Callable[[], Recipe]] = {
    "mae_b16": mae_b16,
    "mvp_b16": mvp_b16,
    "mvp_l16": mvp_l16,
    "uta_b14": uta_b14,
    "uta_l14": uta_l14,
    "uta_g14": uta_g14,
    **{row.__name__: row for row in FAMILIES},
}


def names() -> list[str]:
    """Every recipe that has a name; a tiny one also takes `:smoke` for its shorter budget."""
    return [f"{row}_tiny" for row in METHODS] + list(PAPER)


def names_of_methods() -> dict[str, list[str]]:
    """The names of the recipes of every method."""
    found: dict[str, list[str]] = {row: [f"{row}_tiny"] for row in METHODS}
    for name, make in PAPER.items():
        found.setdefault(make().method.name, []).append(name)
    return found


def recipe(name: str) -> Recipe:
    """A recipe by its name or from a YAML file. `uta+0.5*clip_tiny` is the weighted sum of two rows. A file holds a
    whole recipe, or `base: NAME` and what differs from it.

    Raises:
        UserError: when there is no such recipe (with the nearest name), or the file is not one.
    """
    if name.endswith((".yaml", ".yml")):
        return _from_file(Path(name))
    base, _, budget = name.partition(":")
    if base in PAPER and not budget:
        return PAPER[base]()
    rows = rows_of(base.removesuffix("_tiny"))
    if base.endswith("_tiny") and rows and budget in {"", "smoke", "demo"}:
        return tiny(rows, "smoke" if budget == "smoke" else "demo")
    near = suggest(name, names()) or "."
    raise UserError(f"there is no recipe '{name}'{near} Type onestage ls recipes to see them all.")


def rows_of(text: str) -> list[tuple[float, Method]]:
    """`uta+0.5*clip` as weighted rows of the table; empty where one of them is no row."""
    words = [_weighted(word) for word in text.split("+")]
    return [(weight, METHODS[row]) for weight, row in words] if all(row in METHODS for _, row in words) else []


def _weighted(word: str) -> tuple[float, str]:
    """`0.5*clip` as a weight and a row."""
    weight, times, row = word.partition("*")
    try:
        return (float(weight), row) if times else (1.0, word)
    except ValueError:
        return 1.0, word


def _from_file(file: Path) -> Recipe:
    plain = read_yaml(file)
    if not isinstance(plain, dict) or "base" not in plain:
        return from_plain(Recipe, plain, str(file))
    base = plain.pop("base")
    if not isinstance(base, str) or base.endswith((".yaml", ".yml")):
        raise UserError(f"{file}: base: expected the name of a recipe, such as uta_tiny, not {base!r}")
    return from_plain(Recipe, _over(to_plain(recipe(base)), plain), str(file))


def _over(held: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Plain values with others laid over them, mappings key by key; another `kind` of part replaces the whole part."""
    laid = dict(held)
    for key, value in given.items():
        below = held.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and value.get("kind") in {None, below.get("kind")}:
            laid[key] = _over(below, value)
        else:
            laid[key] = value
    return laid


__all__ = ["FAMILIES", "PAPER", "names", "names_of_methods", "recipe", "rows_of", "tiny"]
