"""What can be said of a scene, exactly: captions, questions and answers, statements on pairs, moving clips.

The article is always "a" ("a eight" too), so that one prompt, "a {}", names every class in the captions' words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from onestage.data.scene import COLOURS, WORDS, Digit, Scene, render
from onestage.sample import Question, Statement
from onestage.spec import UserError

T = TypeVar("T")

CAPTION_KINDS = ("digit", "colour", "pair", "full")
"""What each caption of a scene tells, in their order: the shortest is always the first."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COUNTS = ("two", "three")
"""How many digits a scene may have."""


def captions(scene: Scene) -> tuple[str, ...]:
    """One caption of each kind: the main digit, with its colour, beside a neighbour, and with both."""
    main, other = scene.digits[0], scene.digits[1]
    where = relation(main, other)
    word, neighbour = WORDS[main.value], WORDS[other.value]
    return (
        f"a {word}",
        f"a {main.colour} {word}",
        f"a {word} {where} a small {neighbour}",
        f"a {main.colour} {word} {where} a small {other.colour} {neighbour}",
    )


def relation(one: Digit, other: Digit) -> str:
    """Where one digit stands as seen from another, along the axis on which their centres differ more."""
    across, down = (a - b for a, b in zip(one.centre, other.centre, strict=True))
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def questions(scene: Scene) -> tuple[Question, ...]:
    """Questions with their answers. Each yes has its no, so that the question alone tells nothing."""
    main, *small = scene.digits
    chance = main.glyph  # a number that says nothing of the rest of the scene
    values = [digit.value for digit in scene.digits]
    colours = [digit.colour for digit in scene.digits]
    missing_values = [value for value in range(len(WORDS)) if value not in values]
    missing_colours = [colour for colour in COLOURS if colour not in colours]
    small_values = [digit.value for digit in small]
    asked = (
        ("what is the largest digit?", WORDS[main.value]),
        ("what colour is the largest digit?", main.colour),
        ("how many digits are there?", WORDS[len(values)]),
        (f"is there a {WORDS[_pick(values, chance)]}?", "yes"),
        (f"is there a {WORDS[_pick(missing_values, chance)]}?", "no"),
        (f"is there a {_pick(colours, chance)} digit?", "yes"),
        (f"is there a {_pick(missing_colours, chance)} digit?", "no"),
        *(
            (f"what colour is the small {WORDS[digit.value]}?", digit.colour)
            for digit in small
            if small_values.count(digit.value) == 1
        ),
    )
    return tuple(Question(text, (answer,)) for text, answer in asked)


def _pick(choices: Sequence[T], number: int) -> T:
    return choices[number % len(choices)]


def pair_statement(first: Scene, second: Scene, rng: np.random.Generator) -> Statement:
    """A statement about two scenes, as often true (verdict 1) as false (0).

    It says one fact of each; a false one differs from the truth in one of the two. So both pictures have to be
    seen, and the words alone tell nothing: every pair of facts is as frequent in true statements as in false ones.
    """
    a, b = first.digits[0], second.digits[0]
    kinds: tuple[tuple[str, Sequence[str], str, str], ...] = (
        (
            "the largest digit is a {} in the first picture and a {} in the second",
            WORDS,
            WORDS[a.value],
            WORDS[b.value],
        ),
        (
            "the largest digit is {} in the first picture and {} in the second",
            tuple(COLOURS),
            a.colour,
            b.colour,
        ),
        (
            "there are {} digits in the first picture and {} in the second",
            COUNTS,
            WORDS[len(first.digits)],
            WORDS[len(second.digits)],
        ),
    )
    text, words, *facts = kinds[rng.integers(len(kinds))]
    truth = bool(rng.integers(2))
    if not truth:
        changed = int(rng.integers(2))
        others = [word for word in words if word != facts[changed]]
        facts[changed] = others[rng.integers(len(others))]
    return Statement(text.format(*facts), int(truth))


class Clip(NamedTuple):
    """A short clip, and its caption."""

    frames: UInt8[np.ndarray, "f size size 3"]
    caption: str


def clip(scene: Scene, frames: int, size: int, rng: np.random.Generator) -> Clip:
    """The main digit alone crosses the scene from edge to edge, as its caption says: "a red seven moves left".

    Raises:
        UserError: for fewer than two frames, in which nothing moves.
    """
    if frames < 2:
        raise UserError(f"a clip of {frames} frames: nothing moves in fewer than two")
    direction = list(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
    main = scene.digits[0]
    shown = [
        render(dataclasses.replace(scene, digits=(_moved(main, direction, float(way)),)), size)
        for way in np.linspace(0, 1, frames)
    ]
    return Clip(np.stack(shown), f"a {main.colour} {WORDS[main.value]} moves {direction}")


def _moved(digit: Digit, direction: str, way: float) -> Digit:
    """A digit after a share of its way from one edge to the opposite one."""
    x, y = DIRECTIONS[direction]
    place = (way if x + y > 0 else 1 - way) * (1 - digit.side)
    return dataclasses.replace(digit, left=place) if x else dataclasses.replace(digit, top=place)
