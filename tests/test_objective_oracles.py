"""Every row names the tests that verify it, and they exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from onestage.methods import METHODS
from onestage.objective import verified_by
from onestage.objective.oracles import PARTS, ROWS, parts

TESTS = {
    node.name
    for path in Path(__file__).parent.glob("test_*.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}


@pytest.mark.parametrize("name", METHODS)
def test_every_part_of_a_row_has_an_oracle(name: str) -> None:
    assert [kind for kind in parts(METHODS[name]) if kind not in PARTS] == []
    assert verified_by(METHODS[name])


def test_the_named_tests_exist() -> None:
    named = {*PARTS.values(), *(test for tests in ROWS.values() for test in tests)}
    assert sorted(named - TESTS) == []
    assert sorted(set(ROWS) - set(METHODS)) == []
