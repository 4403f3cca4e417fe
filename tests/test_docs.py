"""The generated pages of docs/ are what the code says now."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from onestage.data import KINDS
from onestage.methods import METHODS
from onestage.objective import term_rows
from onestage.recipes import names

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES: dict[str, str] = runpy.run_path(str(DOCS / "build.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name], f"docs/{name} is stale: run make docs"


def test_the_pages_name_every_method_and_every_recipe_once() -> None:
    rows = {page: re.findall(r"^\| `?(\w+)`? \|", text, re.MULTILINE) for page, text in PAGES.items()}
    assert rows["methods.md"] == ["method", *(name for name, row in METHODS.items() for _ in term_rows(row))]
    assert rows["recipes.md"] == ["name", *names()]


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in sorted(DOCS.glob("*.md")))]
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (ROOT / page).parent.joinpath(target).exists()] == []


def test_the_page_of_data_has_every_kind_of_source() -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    assert [prefix for prefix in KINDS if f"`{prefix}" not in text] == []


def test_no_entry_of_the_log_stands_inside_its_template() -> None:
    template, entries = (ROOT / "docs" / "log.md").read_text(encoding="utf-8").split("-->", 1)
    assert "## YYYY-MM-DD" in template
    assert not re.search(r"^## \d", template, flags=re.MULTILINE)
    days = re.findall(r"^## (\d{4}-\d{2}-\d{2})", entries, flags=re.MULTILINE)
    assert days == sorted(days, reverse=True), "newest first"
