"""Writes the generated pages of this folder from the code: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from onestage.methods import METHODS
from onestage.objective import COLUMNS, term_rows
from onestage.recipes import PAPER, names, recipe
from onestage.recipes.describe import first_line, length, needs

GENERATED = "<!-- Made by docs/build.py (make docs). Mend the code, not the page. -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def linked(text: str) -> str:
    """Names of arXiv papers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", text)


def methods_page() -> str:
    """The table of methods: a line for each term, in the columns of M3I's table, with the citation."""
    rows = [[*row, linked(method.cite)] for method in METHODS.values() for row in term_rows(method)]
    return f"""{GENERATED}
# Methods

Every method is a row of one table: a term says that input *x* explains target *y* (M3I, eq. 1 and eq. 4). *z_y* is
what has to be explained, *P_hat* the likelihood, and the regulariser is what keeps all answers from becoming one.
The same table in a terminal: `onestage ls methods`. The declarations: [src/onestage/methods](../src/onestage/methods).

{table([*COLUMNS, "source"], rows)}
"""


def about(name: str) -> str:
    """What a recipe is, in one line."""
    if name in PAPER:
        return linked(first_line(PAPER[name]).rstrip("."))
    return f"the row {name.removesuffix('_tiny')} at a size that learns on two cores, on built-in pictures"


def recipes_page() -> str:
    """Every recipe that has a name."""
    made = [(name, recipe(name)) for name in names()]
    rows = [[f"`{name}`", about(name), f"{row.batch}", length(row), ", ".join(needs(row)) or "-"] for name, row in made]
    return f"""{GENERATED}
# Recipes

A recipe is a method plus sizes, data, optimiser and numbers. `onestage show NAME` prints all of it, `onestage cp NAME
my.yaml` writes it to a file to edit. A `NAME_tiny` is derived from the row itself and has a shorter form,
`NAME_tiny:smoke`. A paper-size recipe is a function whose docstring is a lab note (paper, command, cost, expected
score, what is assumed): [src/onestage/recipes/paper.py](../src/onestage/recipes/paper.py).

{table(("name", "what it is", "batch", "length", "needs"), rows)}
"""


def pages() -> dict[str, str]:
    """File name to text."""
    return {"methods.md": methods_page(), "recipes.md": recipes_page()}


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
        print(f"docs/{name}")
