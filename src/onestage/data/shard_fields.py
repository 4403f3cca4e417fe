"""What the text members of a sample in a shard say: its texts, class, boxes and questions.

`txt` is a text, `cls` a class's number or name, `json` may have `texts` (a list) or `text`, `label`, and what
`onestage data pack` writes: `boxes` as (left, top, right, bottom) in pixels, `box_labels`, `box_crowds`, `box_areas`,
`keypoints` (for each box a list of x, y and 0, 1 or 2), `questions`, each a text, its answer or a list of them, and its
key where it has one, `statement` (a text and the number of its verdict, or null) and `times`, those of a clip's frames.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

from onestage.data.keys import TEXTS, Keys
from onestage.sample import Question, Sample, Statement

_FIELDS = frozenset({"boxes", "questions", "statement"})
"""Without boxes there is nothing else of theirs."""
_NAMES = re.compile(rb"text|caption|label|boxes|questions|statement|times|\\|\0")
"""And what may hide one: escapes, and letters of two bytes."""
MAX_FIELD = 1 << 20
"""Bytes of a text, a JSON or a class; larger ones are not read."""


def texts_of(text: bytes | None, given: Any) -> tuple[str, ...]:
    """The texts of a sample: those that its JSON lists, else its own text, else the JSON's one."""
    known = given if isinstance(given, dict) else {}
    listed = next((known[key] for key in ("texts", "captions") if isinstance(known.get(key), list)), None)
    if listed is None and text is not None:
        listed = [text.decode("utf-8", "replace")]
    if listed is None:
        listed = [known[key] for key in ("text", "caption") if isinstance(known.get(key), str)][:1]
    return tuple(text.strip() for text in listed if isinstance(text, str) and text.strip())


def renamed(given: Any, keys: Keys) -> Any:
    """A sample's JSON with its text and label under their usual names, where a user said under which they are."""
    if not isinstance(given, dict):
        return given
    plain = dict(given)
    if keys.text is not None:
        plain = {name: value for name, value in given.items() if name not in TEXTS}
        told = given.get(keys.text)
        plain |= {"texts": told if isinstance(told, list) else [told]} if told is not None else {}
    if keys.label is not None:
        plain["label"] = given.get(keys.label)
    return plain


def may_tell(content: bytes) -> bool:
    """Whether there may be one of the names that are looked for in a JSON, which need not be read otherwise."""
    return _NAMES.search(content) is not None


def parsed(content: bytes | None) -> Any:
    """JSON as plain values; None for what is none."""
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None


def label_of(content: bytes | None, given: Any) -> str | None:
    """The class of a sample: its `cls`, else what its JSON says under `label`."""
    told = given.get("label") if isinstance(given, dict) else None
    if content is not None:
        told = content.decode("utf-8", "replace").strip()
    usable = isinstance(told, str | int) and not isinstance(told, bool) and str(told) != ""
    return str(told) if usable and "\n" not in str(told) else None


def with_fields(sample: Sample, given: Any) -> Sample:
    """A sample with what its JSON says beside texts and class."""
    if not isinstance(given, dict) or _FIELDS.isdisjoint(given):
        return sample
    return replace(
        sample,
        boxes=boxes_of(given),
        box_labels=box_labels_of(given),
        box_crowds=box_crowds_of(given),
        box_areas=box_areas_of(given),
        keypoints=keypoints_of(given),
        questions=questions_of(given),
        statement=statement_of(given),
    )


def boxes_of(given: Any) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes in pixels; none where they are not all four numbers."""
    rows = _listed(given, "boxes")
    sound = all(isinstance(row, list) and len(row) == 4 and all(map(_is_number, row)) for row in rows)
    return tuple((float(row[0]), float(row[1]), float(row[2]), float(row[3])) for row in rows) if sound else ()


def box_labels_of(given: Any) -> tuple[int, ...]:
    """Their labels; none where they are not all numbers."""
    rows = _listed(given, "box_labels")
    return tuple(rows) if all(isinstance(row, int) for row in rows) else ()


def box_crowds_of(given: Any) -> tuple[bool, ...]:
    """Whether each is a crowd; none where that is not told of all of them."""
    rows = _listed(given, "box_crowds")
    return tuple(rows) if all(isinstance(row, bool) for row in rows) else ()


def box_areas_of(given: Any) -> tuple[float, ...]:
    """Their areas in pixels; none where they are not all numbers."""
    rows = _listed(given, "box_areas")
    return tuple(map(float, rows)) if all(map(_is_number, rows)) else ()


def keypoints_of(given: Any) -> tuple[tuple[tuple[float, float, int], ...], ...]:
    """The points of each box; none where one is not as it should be."""
    rows = _listed(given, "keypoints")
    if not all(isinstance(row, list) and all(map(_is_point, row)) for row in rows):
        return ()
    return tuple(tuple((float(x), float(y), int(seen)) for x, y, seen in row) for row in rows)


def statement_of(given: Any) -> Statement | None:
    """A statement and its verdict."""
    match _listed(given, "statement"):
        case [str(text), None]:
            return Statement(text, None)
        case [str(text), int(verdict)]:
            return Statement(text, verdict)
    return None


def times_of(given: Any) -> tuple[float, ...]:
    """Times of a clip's frames in seconds."""
    rows = _listed(given, "times")
    return tuple(map(float, rows)) if all(map(_is_number, rows)) else ()


def questions_of(given: Any) -> tuple[Question, ...]:
    """Questions with their answers; none where one is not as it should be."""
    found = [_question(row) for row in _listed(given, "questions")]
    sound = [question for question in found if question is not None]
    return tuple(sound) if len(sound) == len(found) else ()


def _question(row: Any) -> Question | None:
    if not isinstance(row, list) or len(row) not in {2, 3}:
        return None
    text, told, *key = row
    answers = told if isinstance(told, list) else [told]
    texts = all(isinstance(one, str) for one in (text, *answers, *key))
    return Question(text, tuple(answers), *key) if texts else None


def _listed(given: Any, name: str) -> list[Any]:
    found = given.get(name) if isinstance(given, dict) else None
    return found if isinstance(found, list) else []


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)) and value[2] in {0, 1, 2}
