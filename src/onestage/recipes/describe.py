"""Recipes and methods as text for people: the table of methods, the table of terms, parameters and FLOPs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from onestage.data import KINDS
from onestage.encoders import ClipText, Vit
from onestage.objective import COLUMNS, Frozen, Method, Trained, depth_read, term_rows, verified_by
from onestage.pretraining import Recipe
from onestage.pretraining.resolve import resolve
from onestage.spec import fields_of, to_yaml
from onestage.types import Geometry, Piece, View, Words

SOURCES = {
    "scenes[:train|test]": "built in: handwritten digits on photographs, with captions, labels, boxes and masks",
    "scenes-pairs[:train|test]": "built in: two scenes and a statement on them, true or false",
    "scenes-clips[:train|test]": "built in: scenes in which a digit moves as the caption says",
    "digits[:train|test]": "built in: scikit-learn's handwritten digits, with labels",
    "FOLDER": "images; sub-folders are classes; metadata.jsonl, .csv, .parquet: file_name and text or label",
    "0.7*SRC+0.3*SRC": "a mixture: every step holds the same number of samples of each source",
    **{kind.form: kind.about for kind in KINDS.values()},
    "FILE-{000..127}.tar": "tar shards in WebDataset's format: jpg, txt, cls, json; also * and ?, or one file",
}


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, the last column as it is."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().split("\n")[0]


def options_text(specs: Mapping[str, type]) -> str:
    """Specs by name, each with what its docstring says first, and its fields as options with their defaults."""
    lines = []
    for name, one in specs.items():
        lines.append(f"{name}: {first_line(one)}")
        lines += columns([(f"  --{field.name}", field.about, f"[{field.default}]") for field in fields_of(one)]).split(
            "\n"
        )
    return "\n".join(lines)


def length(recipe: Recipe) -> str:
    """How long a recipe trains."""
    return f"{recipe.epochs:g} epochs" if recipe.epochs is not None else f"{recipe.steps} steps"


def needs(recipe: Recipe) -> list[str]:
    """What a recipe needs besides images."""
    needed = {
        "clips": any(view.frames is not None for view in recipe.method.views.values()),
        "captions": recipe.method.needs_texts,
        "labels": recipe.method.needs_labels,
        "a teacher": bool(recipe.method.named(Frozen)),
    }
    return [word for word, is_needed in needed.items() if is_needed]


def recipe_line(recipe: Recipe) -> str:
    """A recipe in a few words."""
    words = needs(recipe)
    return f"batch {recipe.batch}, {length(recipe)}" + (f"; needs {' and '.join(words)}" if words else "")


def methods_table(methods: Mapping[str, Method], recipes: Mapping[str, Sequence[str]]) -> str:
    """The table of all methods: their terms, then for each its citation, its recipes and its oracle tests.

    Args:
        recipes: the names of the recipes of each method.
    """
    terms = columns([COLUMNS, *(row for method in methods.values() for row in term_rows(method))])
    width = shutil.get_terminal_size((120, 24)).columns
    about = [_about(method, recipes.get(name, ()), width) for name, method in methods.items()]
    return "\n\n".join([terms, *about])


def _about(method: Method, recipes: Sequence[str], width: int) -> str:
    told = {"cite": method.cite, "recipe": ", ".join(recipes), "verified by": ", ".join(verified_by(method))}
    filled = (
        textwrap.fill(text, max(width, 60), initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
        for name, text in told.items()
    )
    return "\n".join([method.name, *filled])


def recipe_text(recipe: Recipe) -> str:
    """YAML, the table of terms, parameters, and FLOPs per sample."""
    follows = any(not isinstance(model, ClipText) and model.size is None for model in recipe.models.values())
    made = resolve(recipe, {})
    note = (
        "  (sizes as without a teacher; they follow the teacher's grid)"
        if follows and recipe.method.named(Frozen)
        else ""
    )
    parts = [
        to_yaml(recipe).rstrip(),
        columns([COLUMNS, *term_rows(recipe.method)]),
        columns([("encoder", "parameters", "grid", "GFLOP per sample, forward"), *encoder_rows(made)]) + note,
        f"cite: {recipe.method.cite}",
    ]
    return "\n\n".join(parts)


def encoder_rows(recipe: Recipe) -> list[tuple[str, ...]]:
    """Parameters, grid and forward FLOPs of every trained encoder with its projectors, over all that it sees of a
    sample; built without memory."""
    rows = []
    method = recipe.method
    with torch.device("meta"):
        for name in method.named(Trained):
            encoder = recipe.models[name].build(_modes(recipe, name))
            used = {term.projector for term in method.terms.values() if method.input_of(term).encoder == name}
            projectors = [one.build(encoder.width).eval() for key, one in method.projectors.items() if key in used]
            count = sum(parameter.numel() for part in (encoder, *projectors) for parameter in part.parameters())
            for part in (encoder, *projectors):
                part.requires_grad_(False)  # the counter looks for the gradients of parameters that are handed on
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                for key in [key for key, asked in method.inputs.items() if asked.encoder == name] or [None]:
                    tokens = encoder(_piece(recipe, name, key, encoder.grid, encoder.size))
                    for projector in projectors:
                        projector(tokens)
            grid = f"{encoder.grid[0]}x{encoder.grid[1]}"
            rows.append((name, f"{count:,}", grid, f"{counter.get_total_flops() / 1e9:.3f}"))
    return rows


def _modes(recipe: Recipe, name: str) -> frozenset[str]:
    """What decides which rows an encoder gives: a text tower gives those of its words where it reads an input."""
    if not isinstance(recipe.models[name], ClipText):
        return frozenset()
    asked = [one for one in recipe.method.inputs.values() if one.encoder == name]
    return frozenset(part.mode for one in asked for part in one.parts.values())


def _piece(recipe: Recipe, name: str, key: str | None, grid: tuple[int, int], size: int) -> dict[str, Piece]:
    """A sample as the encoder sees it in an input: with what that drops."""
    model = recipe.models[name]
    part = next(iter(recipe.method.inputs[key].parts.values())) if key is not None else None
    if isinstance(model, ClipText):
        words = Words(torch.zeros(1, model.context, dtype=torch.long), torch.zeros(1, dtype=torch.long))
        if part is None or part.hide is None:
            return {"text": Piece(None, words=words)}
        hidden = torch.zeros(1, model.context, dtype=torch.bool)
        return {"text": Piece(None, words, hidden, part.hide.count((1, model.context)), "drop")}
    geometry = Geometry(torch.zeros(1, 4), torch.zeros(1, dtype=torch.bool))
    side = size if part is None or part.of not in recipe.method.views else recipe.method.views[part.of].size or size
    frames = model.frames if isinstance(model, Vit) else 1
    view = View(torch.zeros(1, 3, frames * side, side), geometry)
    layers = depth_read(recipe.method, key) if key is not None else 0
    if part is None or part.hide is None or part.mode != "drop":
        return {"image": Piece(view, layers=layers)}
    hidden = torch.zeros(1, grid[0] * grid[1], dtype=torch.bool)
    return {"image": Piece(view, hidden=hidden, hides=part.hide.count(grid), mode="drop", layers=layers)}
