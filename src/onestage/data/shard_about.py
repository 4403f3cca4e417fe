"""`source.json` beside shards: what their source says of itself that no sample does, such as the names of the classes
of boxes. `onestage data pack` writes it; shards without it are what their members show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onestage.data.annotated import MAX_CLASSES
from onestage.sample import Source
from onestage.spec import UserError
from onestage.storage import write_atomic

ABOUT = "source.json"
MAX_ABOUT = 1 << 26
"""Bytes."""
_NAMES = ("mask_classes", "box_classes", "keypoints", "verdicts")
_FLAGS = ("has_masks", "has_questions", "has_clips")
_KEPT = frozenset({"crop", "flip", "colour"})


def write_about(folder: Path, source: Source) -> None:
    """Write what a source says of itself."""
    told: dict[str, Any] = {name: list(getattr(source, name)) for name in _NAMES}
    told |= {name: getattr(source, name) for name in _FLAGS}
    told |= {"keeps_captions": sorted(source.keeps_captions), "reads": source.reads}
    write_atomic(folder / ABOUT, json.dumps(told, indent=1) + "\n")


def read_about(folder: Path) -> dict[str, Any]:
    """What the file says, as attributes of a `Source`; nothing where there is none.

    Raises:
        UserError: when it is something else.
    """
    file = folder / ABOUT
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > MAX_ABOUT:
            raise ValueError(f"more than {MAX_ABOUT} bytes")
        told = json.loads(file.read_text(encoding="utf-8"))
        names = {name: tuple(told.get(name, ())) for name in _NAMES}
        flags = {name: told.get(name, False) for name in _FLAGS}
        keeps, reads = frozenset(told.get("keeps_captions", ())), told.get("reads", "random")
        sound = all(isinstance(word, str) for words in names.values() for word in words)
        sound = sound and all(len(words) <= MAX_CLASSES for words in names.values())
        if not (sound and all(type(flag) is bool for flag in flags.values()) and keeps <= _KEPT):
            raise ValueError("a name is no text, or a word is not known")
        if reads not in {"random", "all"}:
            raise ValueError(f"reads is {reads!r:.40}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file}: does not say what its shards hold ({error}); pack them anew, or take it away"
        ) from None
    return {**names, **flags, "keeps_captions": keeps, "reads": reads}
