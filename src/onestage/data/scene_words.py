"""What can be said of a scene, exactly: captions, questions and answers, statements on pairs, moving clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from onestage.data.scene import COLOURS, WORDS, Digit, Scene
from onestage.sample import Question, Statement

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
        one(word),
        f"a {main.colour} {word}",
        f"{one(word)} {where} a small {neighbour}",
        f"a {main.colour} {word} {where} a small {other.colour} {neighbour}",
    )


def one(word: str) -> str:
    """A word with its article: "a seven", "an eight"."""
    return f"{'an' if word == 'eight' else 'a'} {word}"


def relation(digit: Digit, other: Digit) -> str:
    """Where one digit stands as seen from another, along the axis on which their centres differ more."""
    across, down = (a - b for a, b in zip(digit.centre, other.centre, strict=True))
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
        (f"is there {one(WORDS[_pick(values, chance)])}?", "yes"),
        (f"is there {one(WORDS[_pick(missing_values, chance)])}?", "no"),
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
            "the largest digit is {} in the first picture and {} in the second",
            tuple(map(one, WORDS)),
            one(WORDS[a.value]),
            one(WORDS[b.value]),
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


class Motion(NamedTuple):
    """A scene whose main digit, alone, crosses it from edge to edge, and what is said of that."""

    scene: Scene
    direction: str
    caption: str


def motion(scene: Scene, rng: np.random.Generator) -> Motion:
    """The main digit of a scene goes one of four ways: "a red seven moves left"."""
    direction = list(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
    main = scene.digits[0]
    return Motion(scene, direction, f"a {main.colour} {WORDS[main.value]} moves {direction}")


def moved_to(moves: Motion, way: float) -> Scene:
    """The scene after a share of the way."""
    return dataclasses.replace(moves.scene, digits=(_moved(moves.scene.digits[0], moves.direction, way),))


def _moved(digit: Digit, direction: str, way: float) -> Digit:
    """A digit after a share of its way from one edge to the opposite one."""
    x, y = DIRECTIONS[direction]
    place = (way if x + y > 0 else 1 - way) * (1 - digit.side)
    return dataclasses.replace(digit, left=place) if x else dataclasses.replace(digit, top=place)
