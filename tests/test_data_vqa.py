"""VQA, NLVR2 and SNLI-VE in their public formats, written here, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onestage.data import open_source
from onestage.roles import BadSample
from onestage.sample import Question, Statement
from onestage.spec import UserError
from typed import draw

ASKED = [
    {"image_id": 42, "question": "What colour?", "question_id": 420},
    {"image_id": 7, "question": "How many?", "question_id": 70},
    {"image_id": 42, "question": "Is it a dog?", "question_id": 421},
    {"image_id": 99, "question": "Where?", "question_id": 990},
]


def answered(key: int, *given: str) -> dict[str, Any]:
    rows = [{"answer": one, "answer_confidence": "yes", "answer_id": number} for number, one in enumerate(given, 1)]
    return {"question_id": key, "image_id": key // 10, "multiple_choice_answer": given[0], "answers": rows}


ANSWERS = [answered(420, *["red"] * 8, "dark red", "maroon"), answered(70, *["2"] * 10)]


def vqa(root: Path, asked: Any = None, answers: Any = None) -> str:
    draw(root / "images" / "val2014" / "COCO_val2014_000000000042.png", 0)
    draw(root / "images" / "000000000007.png", 1)
    questions = {"data_subtype": "val2014", "task_type": "Open-Ended", "questions": ASKED if asked is None else asked}
    (root / "q.json").write_text(json.dumps(questions))
    (root / "a.json").write_text(json.dumps({"annotations": ANSWERS if answers is None else answers}))
    return f"vqa:{root / 'images'},{root / 'q.json'}"


def test_an_image_has_all_its_questions_with_all_answers(tmp_path: Path) -> None:
    text = vqa(tmp_path)
    source = open_source(f"{text},{tmp_path / 'a.json'}")
    assert len(source) == 3 and source.has_questions and not source.has_texts and not source.keeps_captions
    first = source[0]
    assert first.key == "val2014/COCO_val2014_000000000042.png" and first.picture.size == (40, 40)
    told = Question("What colour?", (*["red"] * 8, "dark red", "maroon"), "420")
    assert first.questions == (told, Question("Is it a dog?", (), "421"))
    assert source[1].questions == (Question("How many?", ("2",) * 10, "70"),)
    with pytest.raises(BadSample, match=r"there is no image 99\.\* in .*images"):
        _ = source[2]
    alone = open_source(text)
    assert [question.answers for question in alone[0].questions] == [(), ()]
    assert alone.fingerprint() != source.fingerprint() == open_source(f"{text},{tmp_path / 'a.json'}").fingerprint()


@pytest.mark.parametrize(
    ("told", "file"),
    [
        ({"data_type": "mscoco", "data_subtype": "test-dev2015"}, "COCO_test2015_000000000042"),
        ({"data_type": "mscoco", "data_subtype": "train2014"}, "COCO_train2014_000000000042"),
        ({"data_type": "abstract_v002", "data_subtype": "val2015"}, "abstract_v002_val2015_000000000042"),
        ({}, "000000000042"),
        ({}, "42"),
    ],
)
def test_images_have_the_names_of_their_releases(told: dict[str, str], file: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / f"{file}.png", 0)
    (tmp_path / "q.json").write_text(json.dumps(told | {"questions": ASKED[:1]}))
    assert open_source(f"vqa:{tmp_path / 'images'},{tmp_path / 'q.json'}")[0].key == f"{file}.png"


def test_multiple_choice_has_one_answer(tmp_path: Path) -> None:
    """Where the ten answers are not given: the choices are none of them."""
    asked = [{**ASKED[0], "multiple_choices": ["red", "2", "yes"]}]
    answers = [{"question_id": 420, "image_id": 42, "multiple_choice_answer": "red", "answer_type": "other"}]
    text = vqa(tmp_path, asked, answers)
    assert open_source(f"{text},{tmp_path / 'a.json'}")[0].questions == (Question("What colour?", ("red",), "420"),)


@pytest.mark.parametrize(
    ("asked", "answers", "said"),
    [
        ({}, None, r"no list of objects under 'questions' .there are: data_subtype, task_type, questions"),
        ([{"image_id": 42, "question_id": 1}], None, r"question 0: question is None .there are: image_id, question_id"),
        ([{"question": "a?", "question_id": 1}], None, "image_id is None"),
        ([{"question": "a?", "question_id": 1, "image_id": 5}], [answered(1, "a")], "none of the 1 files"),
        (None, [{"question_id": 420}], "multiple_choice_answer is None"),
        (None, [{"question_id": 420, "answers": [3]}], r"answers is \[3\]; expected VQA's answers"),
        (None, [answered(1, "a")], "answers none of the 4 questions"),
        ([], None, "describes no image|answers none"),
    ],
)
def test_mistakes_in_questions_and_answers(asked: Any, answers: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        open_source(f"{vqa(tmp_path, asked, answers)},{tmp_path / 'a.json'}")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    text = vqa(tmp_path)
    draw(tmp_path / "images" / "other" / "COCO_val2014_000000000042.jpg", 0)
    with pytest.raises(UserError, match="have one name; keep one of them"):
        open_source(text)


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_nlvr2(tmp_path: Path) -> None:
    for number, name in enumerate(("dev-850-0-img0", "dev-850-0-img1", "deep/x")):
        draw(tmp_path / "images" / f"{name}.png", number)
    told = {"sentence": "The left image has two dogs.", "identifier": "dev-850-0-2", "label": "True", "synset": "dog"}
    told |= {"validation": {"1": "True"}, "left_url": "https://a/b.jpg", "right_url": "https://a/c.jpg", "directory": 7}
    other = {**told, "identifier": "dev-850-0-3", "label": "False", "left": "x.png", "right": "dev-850-0-img0.png"}
    open_ended = {key: value for key, value in told.items() if key != "label"} | {"identifier": "dev-851-0-0"}
    file = lines(tmp_path / "dev.json", [told, other, open_ended])
    source = open_source(f"nlvr2:{tmp_path / 'images'},{file}")
    assert source.verdicts == ("false", "true") and not source.has_texts and not source.has_labels
    first, second = source[0], source[1]
    assert (first.key, first.statement) == ("dev-850-0-2", Statement("The left image has two dogs.", 1))
    assert first.second is not None and second.second is not None and second.statement is not None
    assert second.statement.verdict == 0
    assert (first.picture.decode() == second.second.decode()).all()
    assert not (first.picture.decode() == first.second.decode()).all()
    with pytest.raises(BadSample, match=r"no image dev-851-0-img0\.\*"):
        _ = source[2]


def test_snli_ve(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "4705552913.jpg", 0)
    told = {
        "Flickr30K_ID": "4705552913",
        "gold_label": "neutral",
        "sentence1": "Two women are embracing.",
        "sentence2": "The sisters are hugging goodbye.",
        "pairID": "4705552913.jpg#2r1n",
    }
    rows = [told, told | {"gold_label": "entailment", "pairID": "b"}, told | {"gold_label": "-", "pairID": "c"}]
    source = open_source(f"snli-ve:{tmp_path / 'images'},{lines(tmp_path / 'dev.jsonl', rows)}")
    assert source.verdicts == ("contradiction", "neutral", "entailment") and source.has_texts
    first = source[0]
    assert (first.key, first.texts) == ("4705552913.jpg#2r1n", ("Two women are embracing.",))
    assert first.statement == Statement("The sisters are hugging goodbye.", 1) and first.second is None
    verdicts = [source[index].statement for index in (1, 2)]
    assert [one.verdict for one in verdicts if one is not None] == [2, None]


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("nlvr2", {"sentence": "a"}, r"statement 1: identifier is None .there are: sentence"),
        ("nlvr2", {"identifier": "dev-850-0-2"}, "sentence is None"),
        ("nlvr2", {"identifier": "d-0-0", "sentence": "a", "label": "maybe"}, "'maybe' is none of false, true"),
        ("snli-ve", {"sentence2": "a"}, "Flickr30K_ID is None"),
        ("snli-ve", {"Flickr30K_ID": "4", "sentence2": "a", "gold_label": "true"}, "'true' is none of contradiction"),
        ("snli-ve", {"Flickr30K_ID": "4", "sentence2": "a", "gold_label": "neutral"}, "none of the 1 files"),
        ("snli-ve", [], "expected an object"),
    ],
)
def test_mistakes_in_statements(kind: str, row: Any, said: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png", 0)
    with pytest.raises(UserError, match=said):
        open_source(f"{kind}:{tmp_path / 'images'},{lines(tmp_path / 'told.jsonl', [row])}")
    with pytest.raises(UserError, match=f"expected {kind}:IMAGES"):
        open_source(f"{kind}:{tmp_path / 'images'}")
