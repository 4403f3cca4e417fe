"""Paths between commas, as in `coco:IMAGES,ANNOTATIONS.json`. A path may hold commas itself: what exists decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal

from onestage.spec import UserError

Shape = Sequence[Literal["folder", "file"]]
"""What each of several paths is."""
MAX_COMMAS = 32


def paths_of(text: str, listed: str, form: str, *shapes: Shape) -> tuple[Path, ...]:
    """The paths of a list, in the first of the shapes in which all of them exist.

    Args:
        text: all that the user typed, for messages.
        listed: the paths, with commas between them.
        form: how it is spelled.

    Raises:
        UserError: when there is no such list of paths; it names the one that is missing.
    """
    words = listed.split(",")
    if all(words) and len(words) <= MAX_COMMAS:
        for shape in shapes:
            for cuts in combinations(range(1, len(words)), len(shape) - 1):
                ends = pairwise((0, *cuts, len(words)))
                paths = tuple(Path(",".join(words[start:end])) for start, end in ends)
                if all(_is(path, kind) for path, kind in zip(paths, shape, strict=True)):
                    return paths
        for shape in shapes:
            if len(shape) == len(words):
                raise UserError(f"{text}: {_missing(words, shape)}; expected {form}")
    what = {len(shape): ", ".join(shape) for shape in shapes}
    raise UserError(f"{text}: expected {form} ({' or '.join(what.values())}), with commas between them")


def _is(path: Path, kind: Literal["folder", "file"]) -> bool:
    return path.is_dir() if kind == "folder" else path.is_file()


def _missing(words: Sequence[str], shape: Shape) -> str:
    for word, kind in zip(words, shape, strict=True):
        path = Path(word)
        if not _is(path, kind):
            there = "a file, not a folder" if kind == "folder" else "a folder, not a file"
            return f"{path}: {there if path.exists() else f'there is no such {kind}'}"
    raise AssertionError(words)
