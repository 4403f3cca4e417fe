"""What is said of scenes, read back word by word and compared with the description by other means."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from onestage.data import Scenes, open_source
from onestage.data.scene import COLOURS, WORDS, Digit, Scene
from onestage.data.scene_sources import SceneClips, ScenePairs
from onestage.data.scene_words import CAPTION_KINDS, DIRECTIONS, captions, pair_statement, questions
from onestage.roles import BadSample
from onestage.spec import UserError

SOURCE = Scenes("train")
SOME = [SOURCE.scene(index) for index in range(500)]
NUMBER = {word: number for number, word in enumerate(WORDS)}
COLOUR, DIGIT = "|".join(COLOURS), "|".join(WORDS)
CAPTION = re.compile(
    rf"an? (?:(?P<colour>{COLOUR}) )?(?P<digit>{DIGIT})"
    rf"(?: (?P<where>left of|right of|above|below) a small (?:(?P<colour2>{COLOUR}) )?(?P<digit2>{DIGIT}))?"
)


def matches(digit: Digit, word: str, colour: str | None) -> bool:
    return digit.value == NUMBER[word] and (colour is None or digit.colour == colour)


def stands(where: str, one: Digit, other: Digit) -> bool:
    dx = (one.left + one.side / 2) - (other.left + other.side / 2)
    dy = (one.top + one.side / 2) - (other.top + other.side / 2)
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
    return along[where] == max(along.values()) > 0


def test_every_caption_is_true_of_its_scene() -> None:
    seen = set()
    for scene in SOME:
        said = captions(scene)
        assert len(said) == len(CAPTION_KINDS) and said[0] == min(said, key=len)
        for text in said:
            found = CAPTION.fullmatch(text)
            assert found, text
            assert text.startswith("an eight") or not text.startswith("an")
            assert " a eight" not in f" {text}"
            main = max(scene.digits, key=lambda digit: digit.side)
            assert matches(main, found["digit"], found["colour"]), text
            if found["where"]:
                seen.add(found["where"])
                small = [digit for digit in scene.digits if digit is not main]
                assert any(
                    matches(digit, found["digit2"], found["colour2"]) and stands(found["where"], main, digit)
                    for digit in small
                ), text
    assert seen == {"left of", "right of", "above", "below"}


def test_captions_are_those_of_the_sample_from_short_to_long() -> None:
    sample = SOURCE[5]
    assert sample.texts == captions(SOURCE.scene(5)) and sample.questions == questions(SOURCE.scene(5))
    told = [CAPTION.fullmatch(text) for text in sample.texts]
    assert [(bool(found["colour"]), bool(found["where"])) for found in told if found] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]


def answer(scene: Scene, question: str) -> str:
    """The answer, found anew."""
    largest = sorted(scene.digits, key=lambda digit: -digit.side)[0]
    if question == "what is the largest digit?":
        return WORDS[largest.value]
    if question == "what colour is the largest digit?":
        return largest.colour
    if question == "how many digits are there?":
        return WORDS[len(scene.digits)]
    if found := re.fullmatch(rf"what colour is the small ({DIGIT})\?", question):
        fitting = [digit for digit in scene.digits if digit is not largest and WORDS[digit.value] == found[1]]
        assert len(fitting) == 1, "the question is ambiguous"
        return fitting[0].colour
    found = re.fullmatch(rf"is there an? (?:({DIGIT})|({COLOUR}) digit)\?", question)
    assert found, question
    return "yes" if any(found[1] == WORDS[d.value] or found[2] == d.colour for d in scene.digits) else "no"


def test_every_answer_is_true() -> None:
    for scene in SOME:
        asked = questions(scene)
        assert len({question.text for question in asked}) == len(asked) >= 7
        for question in asked:
            assert question.answers == (answer(scene, question.text),), (scene, question)


def test_yes_and_no_are_balanced_for_every_colour_and_digit() -> None:
    asked = Counter(
        (text, *answers) for scene in SOME for text, answers, _ in questions(scene) if text.startswith("is there")
    )
    totals = Counter(given for (_, given), count in asked.items() for _ in range(count))
    assert totals["yes"] == totals["no"] == 1000
    for question in {question for question, _ in asked}:
        share = asked[question, "yes"] / (asked[question, "yes"] + asked[question, "no"])
        assert 0.25 < share < 0.75, question


def truth(first: Scene, second: Scene, text: str) -> bool:
    """Whether a statement holds, found anew."""
    a, b = (max(scene.digits, key=lambda digit: digit.side) for scene in (first, second))
    if found := re.fullmatch(
        rf"the largest digit is an? ({DIGIT}) in the first picture and an? ({DIGIT}) in the second", text
    ):
        return (WORDS[a.value], WORDS[b.value]) == found.groups()
    if found := re.fullmatch(
        rf"the largest digit is ({COLOUR}) in the first picture and ({COLOUR}) in the second", text
    ):
        return (a.colour, b.colour) == found.groups()
    found = re.fullmatch(r"there are (two|three) digits in the first picture and (two|three) in the second", text)
    assert found, text
    return (WORDS[len(first.digits)], WORDS[len(second.digits)]) == found.groups()


def test_statements_on_pairs_are_as_true_as_they_say_and_balanced() -> None:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(3000):
        first, second = (SOME[index] for index in rng.integers(len(SOME), size=2))
        statement = pair_statement(first, second, rng)
        assert statement.verdict == truth(first, second, statement.text), statement
        made.append(statement)
    assert 0.46 < np.mean([statement.verdict for statement in made]) < 0.54
    for start in ("the largest digit is a", "the largest digit is", "there are"):
        kind = [statement for statement in made if statement.text.startswith(start)]
        assert 0.44 < np.mean([statement.verdict for statement in kind]) < 0.56
        alike = [
            statement.verdict for statement in kind if len(set(re.findall(f"{DIGIT}|{COLOUR}", statement.text))) == 1
        ]
        assert 0.3 < np.mean(alike) < 0.7, "two equal facts must not give the truth away"


def test_statements_are_a_function_of_the_generator() -> None:
    one, two = (pair_statement(SOME[0], SOME[1], np.random.default_rng(5)) for _ in range(2))
    assert one == two


def test_pairs_say_what_is_true_of_both_pictures() -> None:
    from onestage.data.builtin import Drawn

    source = open_source("scenes-pairs:test")
    again, verdicts = open_source("scenes-pairs:test"), []
    for index in (*range(150), 1999):
        sample = source[index]
        assert isinstance(sample.picture, Drawn) and isinstance(sample.second, Drawn) and sample.statement
        assert sample.statement.verdict == truth(sample.picture.scene, sample.second.scene, sample.statement.text)
        assert again[index].statement == sample.statement
        verdicts.append(sample.statement.verdict)
    assert source.verdicts == ("false", "true") and 0.35 < np.mean(verdicts) < 0.65
    assert not np.array_equal(source[0].picture.decode(), open_source("scenes-pairs")[0].picture.decode())


def centre(frame: np.ndarray) -> np.ndarray:
    """(x, y) of the bright pixels, brighter than any background."""
    rows, columns = np.nonzero(frame.max(-1) > 180)
    return np.array([columns.mean(), rows.mean()])


def test_a_clip_moves_as_its_caption_says() -> None:
    source, seen = open_source("scenes-clips"), set()
    assert source.has_clips and len(source) == 20_000
    for index in range(30):
        sample = source[index]
        clip, (caption,) = sample.clip, sample.texts
        assert clip is not None and clip.times() == tuple(number / 8 for number in range(8))
        frames = clip.decode(clip.times())
        assert frames.shape == (8, 64, 64, 3) and frames.dtype == np.uint8
        found = re.fullmatch(rf"a ({COLOUR}) ({DIGIT}) moves (left|right|up|down)", caption)
        assert found and found[2] == source.classes[sample.label or 0]
        seen.add(found[3])
        steps = np.diff([centre(frame) for frame in frames], axis=0)
        along = steps @ np.array({"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[found[3]])
        assert (along > 1.5).all(), caption
        assert np.abs(np.abs(steps).sum(1) - along).max() < 0.5, "it moves in no other direction"
        ink = (frames.max(-1) > 180).sum((1, 2))
        assert ink.max() < 1.5 * ink.min(), "the digit is alone, and all of it is there"
        assert np.array_equal(sample.picture.decode(), clip.decode([clip.middle()])[0])
        assert clip.decode([0.3], 16).shape == (1, 16, 16, 3)
        assert np.array_equal(clip.decode([0.3, 0.99]), frames[[2, 7]])
    assert seen == set(DIRECTIONS)


def test_clips_end_and_small_ones_are_refused() -> None:
    clip = open_source("scenes-clips:test")[3].clip
    with pytest.raises(BadSample, match=r"ends at 1 s, before 1\.5 s"):
        assert clip is not None and clip.decode([1.5])
    for kind in (ScenePairs, SceneClips):
        with pytest.raises(UserError, match="scenes of 16 pixels"):
            kind(size=16)
