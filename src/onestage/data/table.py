"""A row of an Arrow table as a sample: a picture's bytes, texts and a label, as the hubs lay them out.

A picture is bytes, or a struct of `bytes` and `path` (the hubs' image feature); of a struct without bytes, the path is
that of a file. Names of the classes are those of the hub's `ClassLabel`; without them, the labels that there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onestage.data.decode import File, InMemory, Unusable
from onestage.data.folders import in_order
from onestage.data.keys import LABELS, PICTURES, TEXTS, Keys, key_among
from onestage.roles import Picture, Sample
from onestage.spec import UserError

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

_FEATURES = b"huggingface"
"""Where the hubs' library keeps its own types in a schema."""


class Columns(NamedTuple):
    """Which columns hold what, and the names of the classes where the schema has them."""

    image: str
    text: str | None
    label: str | None
    classes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Those that are read."""
        return [name for name in (self.image, self.text, self.label) if name is not None]


def columns_of(where: str, schema: Schema, keys: Keys) -> Columns:
    """The columns of a table: those that were asked for, else those of usual names, else the only one with pictures.

    Raises:
        UserError: when one that was asked for is not there or of another type, or there are no pictures.
    """
    types = dict(zip(schema.names, schema.types, strict=True))
    pictures = [name for name, kind in types.items() if _is_picture(kind)]
    image = key_among(where, "image", keys.image, [name for name in PICTURES if name in pictures], types)
    image = image or (pictures[0] if len(pictures) == 1 else None)
    if image is None:
        several = f"several columns hold bytes ({', '.join(pictures)}): say which with image=NAME" if pictures else ""
        raise UserError(f"{where}: {several or 'no column holds pictures as bytes'}; columns: {_shown(types)}")
    text, label = (
        key_among(where, what, asked, [name for name in usual if name in types and fits(types[name])], types)
        for what, asked, usual, fits in (
            ("text", keys.text, TEXTS, _is_text),
            ("label", keys.label, LABELS, _is_label),
        )
    )
    asked = (("image", image, _is_picture), ("text", text, _is_text), ("label", label, _is_label))
    for what, name, fits in asked:
        if name is not None and not fits(types[name]):
            raise UserError(f"{where}: '{name}' holds {types[name]}, which is no {what}; columns: {_shown(types)}")
    return Columns(image, text, label, _named(schema, label))


class Classes(NamedTuple):
    """The names of the classes, and the number of each label as a table has it."""

    names: tuple[str, ...]
    numbers: dict[Any, int]


def classes_of(columns: Columns, labels: Iterable[Any]) -> Classes:
    """The classes by the schema, else by the labels that there are."""
    if columns.classes:
        return Classes(columns.classes, {number: number for number in range(len(columns.classes))})
    found = {label for label in labels if label is not None and label != ""}
    names = in_order({str(label) for label in found})
    return Classes(names, {label: names.index(str(label)) for label in found})


def sample_of(key: str, row: dict[str, Any], columns: Columns, classes: Classes, root: Path | None) -> Sample:
    """A sample.

    Args:
        row: its cells as plain values.
        root: an absolute path, under which the files lie that a row names; None where none may be named.
    """
    texts = row[columns.text] if columns.text is not None else None
    texts = texts if isinstance(texts, list) else [texts]
    texts = tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())
    label = classes.numbers.get(row[columns.label]) if columns.label is not None else None
    return Sample(key=key, picture=_picture(row[columns.image], root), texts=texts, label=label)


def _picture(cell: Any, root: Path | None) -> Picture:
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if content is not None:
        return InMemory(content)
    if not isinstance(path, str) or root is None:
        return Unusable("it has no picture")
    place = Path(os.path.normpath(root / path))
    if not place.is_relative_to(root):
        return Unusable(f"its picture '{path}' lies outside of {root}")
    return File(place)


def _named(schema: Schema, label: str | None) -> tuple[str, ...]:
    """The names of a `ClassLabel`; empty where there are none, or the label is of another kind."""
    try:
        told = json.loads((schema.metadata or {})[_FEATURES])["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(told) if isinstance(told, list) and all(isinstance(name, str) for name in told) else ()


def _is_picture(kind: DataType) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_picture(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or _is_coded(kind)


def _is_label(kind: DataType) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or (_is_text(kind) and not types.is_list(kind) and not types.is_large_list(kind))


def _is_coded(kind: DataType) -> bool:
    from pyarrow import types

    return types.is_dictionary(kind) and types.is_string(kind.value_type)


def _shown(types: dict[str, Any]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in list(types.items())[:20])
