"""`vqa:IMAGES,QUESTIONS.json[,ANNOTATIONS.json]`: questions about images and ten people's answers, as VQA has them.

A sample is an image with all its questions. An `image_id` that is a number is the image `COCO_<data_subtype>_<12
digits>`, or 12 digits, or the number alone; one that is a text is its name. (Goyal et al., "Making the V in VQA
Matter", arXiv:1612.00837; the format is that of its open-ended files.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

from onestage.data.annotated import fingerprint_of, listed, needed, read_json
from onestage.data.entries import Strings
from onestage.data.named import Named, picture
from onestage.data.paths import paths_of
from onestage.roles import Source
from onestage.sample import Question, Sample
from onestage.spec import UserError

PREFIX = "vqa:"
FORM = "vqa:IMAGES,QUESTIONS.json[,ANNOTATIONS.json]"
ABOUT = "VQA's files: questions about images, each with the answers that people gave"


@final
class Vqa(Source):
    """Images with questions.

    Args:
        rows: for each image a JSON object of its `file` and its `questions` (text, answers, key).
    """

    def __init__(self, name: str, folder: Path, rows: Strings, fingerprint: str) -> None:
        self.name, self.folder, self.rows = name, folder, rows
        self.has_questions = True
        # Questions ask for colours, sides, and for what a crop would cut off.
        self.keeps_captions = frozenset()
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = json.loads(self.rows[index])
        asked = tuple(Question(text, tuple(answers), key) for text, answers, key in row["questions"])
        return Sample(key=row["file"], picture=picture(self.folder, row["file"]), questions=asked)

    def fingerprint(self) -> str:
        """Hash of the files of questions and answers, the images' names, and the sizes of a few thousand."""
        return self._fingerprint


def open_vqa(text: str) -> Vqa:
    """A source by what a user types: vqa:IMAGES,QUESTIONS.json[,ANNOTATIONS.json].

    Raises:
        UserError: when a path is missing, a file is in another format, or none of the images is there.
    """
    folder, *files = paths_of(text, text.removeprefix(PREFIX), FORM, ("folder", "file"), ("folder", "file", "file"))
    told = read_json(files[0])
    asked = listed(files[0], told, "questions", 'VQA\'s questions, {"questions": [{image_id, question_id, question}]}')
    answers = _answers(files[1]) if len(files) > 1 else {}
    images = Named(folder)
    rows: dict[str, list[Any]] = {}
    answered = 0
    for number, one in enumerate(asked):
        where = f"{files[0]}, question {number}"
        key = str(needed(where, one, "question_id", (int, str)))
        names = _names(needed(where, one, "image_id", (int, str)), told.get("data_type"), told.get("data_subtype"))
        given = answers.get(key, ())
        answered += bool(given)
        rows.setdefault(images.file(*names), []).append((needed(where, one, "question", str), given, key))
    if len(files) > 1 and asked and not answered:
        raise UserError(f"{files[1]}: answers none of the {len(asked)} questions of {files[0]}; are they of one split?")
    packed = Strings(json.dumps({"file": file, "questions": questions}) for file, questions in rows.items())
    return Vqa(text, folder, packed, fingerprint_of(text, folder, rows, files))


def _names(image: int | str, kind: object, subtype: object) -> tuple[str, ...]:
    """What an image may be called; the questions of `test-dev2015` are about images of `test2015`."""
    if isinstance(image, str):
        return (image,)
    split = str(subtype).replace("-dev", "")
    scenes = [f"{kind}_{split}_{image:012d}"] if isinstance(kind, str) else []
    return f"COCO_{split}_{image:012d}", *scenes, f"{image:012d}", str(image)


def _answers(file: Path) -> dict[str, tuple[str, ...]]:
    """By the question's id, all answers that were given."""
    form = 'VQA\'s answers, {"annotations": [{question_id, answers: [{answer}]}]}'
    found: dict[str, tuple[str, ...]] = {}
    for number, one in enumerate(listed(file, read_json(file), "annotations", form)):
        where = f"{file}, annotation {number}"
        given = one.get("answers")
        rows = given if isinstance(given, list) else [{"answer": needed(where, one, "multiple_choice_answer", str)}]
        if not all(isinstance(row, dict) and isinstance(row.get("answer"), str) for row in rows):
            raise UserError(f"{where}: answers is {given!r:.60}; expected {form}")
        found[str(needed(where, one, "question_id", (int, str)))] = tuple(row["answer"] for row in rows)
    return found
