"""Options of a source, `SRC?text=caption&prompt=a+photo+of+a+{}`: what a user says of it that it does not say itself.

    image=, text=, label=    the key, column or member that holds it
    classes=FILE             names of the classes, in the order of their labels
    prompt=TEXT              a text for every sample, made of its class at {}; said again, it has another one too
    captions=random|all      of several captions any one afresh in each epoch (as a rule), or each in its turn
    keeps=crop,flip,colour   what leaves the captions true; keeps=none for nothing

Spelled as in an address: `+` is a space, and %HH a letter by its number (%26 for &).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, cast
from urllib.parse import parse_qsl

from onestage.data.keys import USUAL, Keys
from onestage.spec import UserError, suggest

Captions = Literal["random", "all"]
AUGMENTATIONS = frozenset({"crop", "flip", "colour"})
NAMES = ("image", "text", "label", "classes", "prompt", "captions", "keeps")
_MARK = re.compile(r"\?(?=[a-z_]+=)")


class Options(NamedTuple):
    """What was said; None and nothing where nothing was."""

    keys: Keys = USUAL
    classes: Path | None = None
    prompts: tuple[str, ...] = ()
    captions: Captions | None = None
    keeps: frozenset[str] | None = None


def parse_options(text: str) -> tuple[str, Options]:
    """The source without its options, and the options.

    Raises:
        UserError: when one has no such name or value.
    """
    found = _MARK.search(text)
    if found is None:
        return text, Options()
    pairs = parse_qsl(text[found.end() :], keep_blank_values=True)
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in NAMES:
            raise UserError(f"{text}: there is no option '{name}'{suggest(name, list(NAMES))} ({', '.join(NAMES)})")
        if not value or (name in given and name != "prompt"):
            raise UserError(f"{text}: {name}= is {'given twice' if value else 'empty'}")
        given[name] = value
    return text[: found.start()], Options(
        Keys(given.get("image"), given.get("text"), given.get("label")),
        Path(given["classes"]) if "classes" in given else None,
        tuple(_prompt(text, value) for name, value in pairs if name == "prompt"),
        _captions(text, given["captions"]) if "captions" in given else None,
        _keeps(text, given["keeps"]) if "keeps" in given else None,
    )


def _prompt(text: str, value: str) -> str:
    if value.count("{}") != 1:
        raise UserError(f"{text}: prompt={value} has no place for the class; write it with one {{}}: a+photo+of+a+{{}}")
    return value


def _captions(text: str, value: str) -> Captions:
    if value not in ("random", "all"):
        raise UserError(f"{text}: captions={value}; expected random or all")
    return cast("Captions", value)


def _keeps(text: str, value: str) -> frozenset[str]:
    words = set() if value == "none" else set(value.split(","))
    if not words <= AUGMENTATIONS:
        raise UserError(f"{text}: keeps={value}; expected none, or some of {','.join(sorted(AUGMENTATIONS))}")
    return frozenset(words)
