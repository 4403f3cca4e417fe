"""The main job on the built-in pictures, from nothing to a report: `make demo`.

A small CLIP learns scenes with captions. Then a vision transformer of another width, drawn at random, learns from that
frozen teacher by unmasked token alignment (UTA, arXiv:2405.19009) without reading one caption, and classifies held-out
digits by text. Everything is written to runs/demo; delete that folder to start anew.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from onestage import api
from onestage.spec import UserError
from onestage.storage import load_checkpoint, write_atomic

FOLDER = Path("runs/demo")
TRAIN, TEST = "scenes", "scenes:test"
SAMPLES = 2000


def main() -> int:
    """Run the demo; 0 when it went through."""
    began = time.monotonic()
    try:
        summary = run(FOLDER)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    summary["seconds"] = round(time.monotonic() - began, 1)
    write_atomic(FOLDER / "summary.json", json.dumps(summary, indent=1) + "\n")
    print("\n" + "\n".join(f"{name:>30}  {value}" for name, value in summary.items()))
    print(f"\nreport: {FOLDER / 'report.html'}")
    return 0


def run(folder: Path) -> dict[str, Any]:
    """Train the teacher and the student, or go on with them; evaluate both; write the report."""
    teacher, student = folder / "teacher", folder / "student"
    say("1/3 the teacher: a small CLIP learns scenes from captions")
    train("clip_tiny", teacher, None)
    say("2/3 the student: learns from the teacher and images alone, without a caption")
    train("uta_tiny", student, str(teacher))
    say("3/3 evaluation on held-out digits, never larger than half of the picture, with distractors")
    before = evaluate("zero-shot", f"{student}@0", student, "zero-shot_at_step_0")
    after = evaluate("zero-shot", str(student), student, "zero-shot")
    taught = evaluate("zero-shot", str(teacher), teacher, "zero-shot")
    neighbours = evaluate("knn", str(student), student, "knn")
    found = evaluate("retrieval", str(student), student, "retrieval")
    api.report([student, teacher], out=folder / "report.html")
    return {
        "teacher_zero_shot": round(taught["top1"], 4),
        "student_zero_shot": round(after["top1"], 4),
        "student_zero_shot_at_step_0": round(before["top1"], 4),
        "student_knn": round(neighbours["top1"], 4),
        "student_retrieval_r1": round(found["text_to_image_r1"], 4),
        "chance": after["chance"],
        "captions_seen_by_student": int(load_checkpoint(student, None).meta["texts"]),
    }


def train(recipe: str, out: Path, teacher: str | None) -> None:
    """Train a recipe, or go on where an earlier demo stopped."""
    if (out / "run.yaml").is_file():
        api.resume(out)
    else:
        settings = {"saving.keep": 10}  # step 0 is evaluated too
        api.pretrain(recipe, out=out, data=TRAIN, val=TEST, teacher=teacher, settings=settings)


def evaluate(task: str, model: str, run: Path, name: str) -> dict[str, float]:
    """One evaluation, kept beside the run for its report."""
    (run / "evaluations").mkdir(exist_ok=True)
    limit = 500 if task == "retrieval" else SAMPLES
    file = run / "evaluations" / f"{name}.json"
    return api.evaluate(task, model, data=TEST, limit=limit, json=file)["metrics"]


def say(line: str) -> None:
    """A heading."""
    print(f"\n{line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
