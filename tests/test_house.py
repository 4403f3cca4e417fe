"""The rules of the house that no linter checks: budgets, names, the README's tree, what imports cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from onestage.ops import gather_rows

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "onestage"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}

FILE_LINES = 300
FUNCTION_LINES = 60
LOOP_LINES = {"run_loop": 80}
"""The one function that may be longer: the training loop, which reads best from top to bottom."""

HEAVY = ("torch", "torchvision", "timm", "open_clip", "matplotlib", "sklearn", "pandas")
VERBS = ("pretrain", "evaluate", "average", "show", "check", "ls", "cp", "report", "resume")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_files_keep_their_budget() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*MODULES, *ROOT.glob("tests/*.py")]
    }
    assert lengths
    assert [f"{name(path)}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES] == []


def test_functions_keep_their_budget() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}: {lines} lines"
        for path, tree in TREES.items()
        for node in functions(tree)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > LOOP_LINES.get(node.name, FUNCTION_LINES)
    ]
    assert long == []


def test_only_one_function_is_a_loop() -> None:
    loops = [name(path) for path, tree in TREES.items() for node in functions(tree) if node.name in LOOP_LINES]
    assert len(LOOP_LINES) == 1
    assert len(loops) <= 1, f"only one function may use the loop's budget: {loops}"


def test_no_module_without_a_subject() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "registry"}
    assert [name(path) for path in PACKAGE.rglob("*") if path.stem in vague] == []


def test_every_module_says_what_it_is() -> None:
    assert [name(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def base_names(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).split("[")[0] for base in node.bases]


def test_classes_of_ours_inherit_only_from_abstract_ones() -> None:
    classes = [
        (path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    concrete = {node.name for _, node in classes} - {node.name for _, node in classes if "ABC" in base_names(node)}
    exceptions = {"UserError", "BadSample"}
    heirs = [
        f"{name(path)}:{node.lineno} {node.name}({base})"
        for path, node in classes
        for base in base_names(node)
        if base in concrete - exceptions
    ]
    assert heirs == []


def is_cache(inside: Path) -> bool:
    return any(part == "__pycache__" or part.endswith("_cache") for part in inside.parts)


def tree_of_readme() -> dict[str, str]:
    """Path below src/onestage (a folder for its `__init__.py`) to its line, from the README's fenced tree."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```\nsrc/onestage/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block, "README.md has no fenced tree that begins with src/onestage/"
    rows = re.findall(r"^  (\S+)(?: +(\S.*))?$", block[1], re.MULTILINE)
    assert len(rows) == len(block[1].splitlines()), "a line of the tree is not '  path  what it is'"
    assert len(rows) == len(dict(rows)), "a file stands twice in the tree"
    return dict(rows)


def tree_of_source() -> dict[str, str]:
    """The same, from the files: the line is the first of the module's docstring."""
    lines = {}
    for path in sorted(PACKAGE.rglob("*")):
        inside = path.relative_to(PACKAGE)
        if not path.is_file() or is_cache(inside):
            continue
        first = (ast.get_docstring(TREES[path]) or "").split("\n")[0].rstrip(".") if path in TREES else ""
        folder = inside.name == "__init__.py" and len(inside.parts) > 1
        lines[f"{inside.parent.as_posix()}/" if folder else inside.as_posix()] = first
    return lines


def test_readme_lists_every_file_and_nothing_else() -> None:
    told, real = tree_of_readme(), tree_of_source()
    missing = "\n".join(f"  {path:<28}{line}" for path, line in real.items() if path not in told)
    stale = sorted(set(told) - set(real))
    assert not missing, f"README.md's tree lacks these lines:\n{missing}"
    assert not stale, f"README.md's tree lists what does not exist: {stale}"
    assert [path for path, line in told.items() if not line] == [], "a file of the tree has no description"


def own_files() -> list[Path]:
    """What the repository holds, without asking git: a source archive is checked as well."""
    folders = [path for folder in ("src", "tests", "docs", ".ci") for path in (ROOT / folder).rglob("*")]
    top = [path for end in ("*.md", "*.toml", "*.yaml", "*.txt", "Makefile") for path in ROOT.glob(end)]
    return [path for path in [*folders, *top] if path.is_file() and not is_cache(path.relative_to(ROOT))]


def test_nothing_names_a_machine_or_a_package_index() -> None:
    homes = "|".join(("home", "Users", "root", "tmp", "work", "mnt", "scratch", "farm"))
    index = "|".join(("index" + "-url", "find" + "-links", "trusted" + "-host", "file:" + "//"))
    pattern = re.compile(rf"(?<![\w.}}-])/(?:{homes})/[\w.]+|{index}")
    assert pattern.search("see /" + "home/me/data") and pattern.search("--extra-index" + "-url x")
    found = []
    for path in own_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{name(path)}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


def test_constraints_pin_every_line_and_leave_torch_its_own() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line)] == []
    assert [line for line in lines if re.match(r"(nvidia|cuda|triton)", line)] == []


def test_shapes_in_signatures_are_checked() -> None:
    """By jaxtyping's import hook of pyproject.toml; without it every annotated shape would be a comment."""
    right, wrong = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    index = torch.zeros(2, 1, dtype=torch.long)
    assert gather_rows(right, index).shape == (2, 1, 4)
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        gather_rows(wrong, index)


def fresh(code: str, *arguments: str) -> str:
    """The standard output of `code` in an interpreter of its own, run from the checkout."""
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
    command = [sys.executable, "-c", path + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"


def test_importing_the_package_is_light() -> None:
    assert "heavy: []" in fresh("import onestage\n" + LOADED)


@pytest.mark.parametrize("arguments", [("--help",), ("pretrain", "--help")], ids=" ".join)
def test_help_is_light(arguments: tuple[str, ...]) -> None:
    """`onestage --help` must answer in under a second, so nothing heavy is imported before a command runs."""
    code = """
import runpy
try:
    runpy.run_module("onestage", run_name="__main__")
except SystemExit as done:
    assert not done.code, done.code
"""
    out = fresh(code + LOADED, *arguments)
    assert "heavy: []" in out
    assert "pretrain" in out


@pytest.mark.parametrize("first", ["onestage", "onestage.report"])
def test_the_verbs_are_functions_of_the_package(first: str) -> None:
    """Also `report`, which is the name of a room too: the verb has the name once any verb has been used."""
    code = f"import {first}, onestage\nprint([v for v in {VERBS!r} if not callable(getattr(onestage, v))])"
    assert fresh(code).strip() == "[]"


def test_the_package_knows_its_version() -> None:
    version = fresh("import onestage; print(onestage.__version__)").strip()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
