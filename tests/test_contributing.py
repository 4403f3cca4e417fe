"""CONTRIBUTING.md's new row, done exactly as the page says."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRIES = """
from onestage.cli import command
assert command(["ls", "methods"]) == 0
assert command(["show", "half_mim_tiny"]) == 0
assert command("pretrain half_mim_tiny:smoke --data scenes --out run --steps 2 --workers 0".split()) == 0
"""


def test_the_toy_row_takes_a_dozen_lines_in_one_file_and_trains(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    place = re.search(r"This toy goes into `(\S+)`, above `ROWS`, which then begins `(ROWS = \(\w+, )`", page)
    assert block is not None and place is not None
    assert len(block[1].splitlines()) <= 12
    copy = tmp_path / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / place[1]
    text = file.read_text(encoding="utf-8")
    assert text.count("ROWS = (") == 1
    file.write_text(text.replace("ROWS = (", f"{block[1]}\n{place[2]}"), encoding="utf-8")
    assert differing(ROOT / "src", copy) == [place[1].removeprefix("src/")]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRIES], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^half_mim +pixels +view replace random", done.stdout, re.MULTILINE)
    assert (tmp_path / "run" / "checkpoints" / "LATEST").is_file()


def differing(left: Path, right: Path) -> list[str]:
    """The Python files of two trees that are not the same."""
    files = sorted({path.relative_to(top).as_posix() for top in (left, right) for path in top.rglob("*.py")})
    _, different, missing = filecmp.cmpfiles(left, right, files, shallow=False)
    return sorted([*different, *missing])
