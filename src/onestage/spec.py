"""Frozen, typed specs and their YAML form.

A spec is a pydantic dataclass: frozen, no unknown keys, a `kind` word where it is a member of a closed union. Every
error carries the exact path of the value (`terms.align.target.rows`), what was given, and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, dataclass_transform

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as _dataclass

S = TypeVar("S")
T = TypeVar("T")

MAX_YAML_BYTES = 1 << 20
_NAMES: set[str] = set()


class UserError(Exception):
    """A mistake of the user, to be shown as one message without a traceback (exit code 2)."""


class Elsewhere(UserError):
    """The mistake that another process of the same run found and tells of; this one ends without a word."""


class Stopped(Exception):
    """A run was asked to stop (SIGTERM) and has saved itself (exit code 143). Without words where another process
    says it."""


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """Make `cls` a frozen spec: typed, validated, without unknown keys."""
    _NAMES.update(cls.__annotations__)
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=False)
    return cast("type[T]", _dataclass(config=config, frozen=True)(cls))


class Described(NamedTuple):
    """A field of a spec: its name, its default as text, and its docstring in one line."""

    name: str
    default: str
    about: str


def fields_of(cls: type) -> list[Described]:
    """The fields of a spec, for people."""
    fields: Mapping[str, Any] = cls.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]
    return [
        Described(
            name, "required" if field.is_required() else str(field.default), " ".join((field.description or "").split())
        )
        for name, field in fields.items()
    ]


def to_plain(value: Any) -> Any:
    """A spec as plain YAML values: dicts, lists and scalars. Fields that are None stay, so that they can be set."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def to_yaml(value: Any) -> str:
    """A spec as YAML text, in declaration order."""
    return yaml.safe_dump(to_plain(value), sort_keys=False, width=110, allow_unicode=True)


def from_plain(cls: type[S], value: Any, origin: str = "") -> S:
    """Validate plain values as a spec.

    Raises:
        UserError: with the path of every bad value, and the nearest key for an unknown one.
    """
    try:
        return TypeAdapter(cls).validate_python(value)
    except ValidationError as error:
        head = f"{origin}: " if origin else ""
        lines = [_explain(item, value) for item in error.errors()]
        raise UserError(head + "\n".join(lines)) from None


def read_yaml(path: Path) -> Any:
    """Plain values from a YAML file.

    Raises:
        UserError: when the file is missing, unreadable, too large or not YAML.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for a recipe (at most {MAX_YAML_BYTES})")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def parse_scalar(text: str) -> Any:
    """The value of a command-line leaf, read as YAML reads it (`1e-3` is a number too)."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError:
        return text


def replace_leaf(plain: dict[str, Any], path: str, value: Any) -> None:
    """Set one leaf of plain values in place, `path` being dotted.

    Raises:
        UserError: when the path does not lead to an existing key, with the nearest one.
    """
    *parents, last = path.split(".")
    node: Any = plain
    for depth, key in enumerate(parents):
        whole = ".".join(parents[: depth + 1])
        if key in node and node[key] is None:
            raise UserError(f"--{path}: '{whole}' is empty; give all of it: --{whole} \"{{{last}: {value}, ...}}\"")
        node = node.get(key)
        if not isinstance(node, dict):
            raise UserError(_unknown(whole, path, plain))
    if last not in node:
        raise UserError(_unknown(path, path, plain) + _of_another_kind(parents, node, last))
    node[last] = value


def leaves(plain: Any, prefix: str = "") -> list[str]:
    """Dotted paths of every leaf."""
    if isinstance(plain, dict) and plain:
        return [leaf for key, item in plain.items() for leaf in leaves(item, f"{prefix}{key}.")]
    return [prefix.rstrip(".")]


def suggest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _unknown(path: str, whole: str, plain: dict[str, Any]) -> str:
    return f"--{whole}: there is no setting '{path}'{suggest(whole, leaves(plain))}"


def _of_another_kind(parents: list[str], node: dict[str, Any], leaf: str) -> str:
    """How a setting that only another kind has is given."""
    if "kind" not in node:
        return ""
    known = ", ".join(key for key in node if key != "kind") or "nothing more"
    return (
        f" Of kind {node['kind']} it has: {known}. Another kind is given whole: "
        f"--{'.'.join(parents)} '{{kind: NAME, {leaf}: VALUE}}'"
    )


def _explain(item: Any, whole: Any) -> str:
    """One pydantic error in our words, with the tags of unions taken out of its path."""
    path, node = [], whole
    for key in item["loc"]:
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, (list, tuple)) and isinstance(key, int) and key < len(node):
            node = node[key]
        elif item["type"] not in {"missing", "missing_argument"}:
            continue
        path.append(str(key))
    where = ".".join(path) or "(whole file)"
    if item["type"] == "unexpected_keyword_argument":
        return f"{where}: unknown setting{suggest(path[-1], sorted(_NAMES))}"
    given = "" if isinstance(item.get("input"), (dict, list)) else f" (given: {item.get('input')!r})"
    return f"{where}: {item['msg']}{given}"


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads `1e-3` as a float (YAML 1.2), as people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
