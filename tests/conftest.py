"""Shared fixtures: single-threaded torch, the folder of real test data, and a folder of what users get wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from onestage.cli import command
from typed import SMALL, draw

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: processes share the suite file by file, and none should be left alone with it."""
    items.sort(key=lambda item: item.path.name != "test_resume.py")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets: `$ONESTAGE_TEST_DATA`, else `../shared/data` beside the checkout."""
    named = os.environ.get("ONESTAGE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real test data is not here: set ONESTAGE_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that a user may point at by mistake, and one sound run."""
    root = tmp_path_factory.mktemp("cli")
    (root / "empty").mkdir()
    draw(root / "one" / "a.png", 0)
    for number in range(4):
        draw(root / "flat" / f"{number}.png", number)
    for name, content in {
        "papers/a.txt": b"x",
        "names.txt": b"a\nb\n",
        "torn.yaml": b"a: [1\n",
        "binary.yaml": b"\xff\xfe\x00\x01",
        "list.yaml": b"- 1\n",
        "nothing.yaml": b"",
        "long.yaml": b"# " + b"x" * (1 << 20),
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    for number in range(8):
        (root / "junk").mkdir(exist_ok=True)
        (root / "junk" / f"{number}.jpg").write_bytes(b"no picture %d" % number)
    assert command(["pretrain", "mae_tiny", "--data", "digits", "--out", f"{root}/run", "--steps", "1", *SMALL]) == 0
    return root
