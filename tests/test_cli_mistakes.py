"""Every mistake of a user is one clear message and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from onestage.cli import command
from typed import Capture

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "no data": ("pretrain mae_tiny --out NEW", ["mae_tiny", "--data"]),
    "missing folder": ("pretrain mae_tiny --data AT/nowhere --out NEW", ["AT/nowhere", "no such folder", "scenes"]),
    "misspelt source": ("pretrain mae_tiny --data digitz --out NEW", ["digitz", "'digits'"]),
    "empty folder": ("pretrain mae_tiny --data AT/empty --out NEW", ["AT/empty", "is empty"]),
    "no images": ("pretrain mae_tiny --data AT/papers --out NEW", ["AT/papers", ".txt", ".jpg"]),
    "file as folder": ("pretrain mae_tiny --data AT/names.txt --out NEW", ["AT/names.txt", "not a folder"]),
    "missing validation data": ("pretrain mae_tiny --data digits --val AT/nowhere --out NEW", ["AT/nowhere"]),
    "unknown recipe": ("pretrain mae_tyny --data digits --out NEW", ["mae_tyny", "'mae_tiny'", "onestage ls recipes"]),
    "unknown paper recipe": ("show uta_b15", ["uta_b15", "'uta_b14'"]),
    "unknown verb": ("pretrian mae_tiny", ["pretrian", "'pretrain'"]),
    "misspelt key": (
        "pretrain mae_tiny --data digits --out NEW --optimizer.groups.image.lr 1",
        ["optimizer.groups.image.lr", "'optimiser.groups.image.lr'"],
    ),
    "unknown leaf": ("show mae_tiny --models.student.dept 2", ["models.student.dept", "'models.student.depth'"]),
    "wrong type": ("pretrain mae_tiny --data digits --out NEW --batch many", ["batch", "integer", "'many'"]),
    "out of range": ("pretrain mae_tiny --data digits --out NEW --batch 0", ["batch", "greater than 0"]),
    "unknown kind": ("show mae_tiny --models.student.kind vitt", ["models.student", "'vitt'", "'vit'"]),
    "no value": ("pretrain mae_tiny --data digits --out NEW --batch", ["--batch", "value is missing"]),
    "two lengths": ("pretrain mae_tiny --data digits --out NEW --epochs 2", ["epochs", "steps"]),
    "uneven pieces": ("pretrain mae_tiny --data digits --out NEW --accumulate 3", ["64", "3 equal pieces"]),
    "existing run": ("pretrain mae_tiny --data digits --out AT/run", ["AT/run", "a run already", "--resume AT/run"]),
    "something at out": ("pretrain mae_tiny --data digits --out AT/flat", ["AT/flat", "another --out"]),
    "file at out": ("pretrain mae_tiny --data digits --out AT/names.txt", ["AT/names.txt", "another --out"]),
    "out inside a file": ("pretrain mae_tiny --data digits --out AT/names.txt/run", ["AT/names.txt/run", "written"]),
    "something at out of seeds": ("pretrain mae_tiny --data digits --out AT/flat --seeds 0,1", ["AT/flat"]),
    "no teacher": (
        "pretrain uta_tiny --data digits --out NEW",
        ["uta_tiny", "onestage pretrain clip_tiny --data scenes --out", "--teacher runs/teacher"],
    ),
    "missing teacher": ("pretrain uta_tiny --data digits --out NEW --teacher AT/nowhere", ["AT/nowhere", "RUN@best"]),
    "teacher without joint space": ("pretrain uta_tiny --data digits --out NEW --teacher AT/run", ["AT/run", "joint"]),
    "weights of another GELU": (
        "pretrain uta_tiny --data digits --out NEW --teacher open_clip:ViT-B-32/openai",
        ["'openai'", "open_clip:ViT-B-32-quickgelu/..."],
    ),
    "teacher in no file of weights": (
        "pretrain uta_tiny --data digits --out NEW --teacher timm:test_vit@AT/nothing.yaml",
        ["nothing.yaml", "expected .safetensors"],
    ),
    "teacher that is not there": (
        "pretrain uta_tiny --data digits --out NEW --teacher hf:AT/nowhere",
        ["there is no folder AT/nowhere", "hf:OWNER/NAME"],
    ),
    "unknown open_clip model": (
        "pretrain uta_tiny --data digits --out NEW --teacher open_clip:NoSuch/AT/names.txt",
        ["open_clip has no model 'NoSuch'"],
    ),
    "folder without open_clip": (
        "pretrain uta_tiny --data digits --out NEW --teacher open_clip:local-dir:AT/empty",
        ["AT/empty", "open_clip_config.json"],
    ),
    "needless teacher": ("pretrain mae_tiny --data digits --out NEW --teacher AT/run", ["mae", "no teacher"]),
    "captions missing": ("pretrain clip_tiny --data AT/flat --out NEW", ["AT/flat", "captions", "metadata.jsonl"]),
    "labels missing": ("pretrain supervised_tiny --data AT/flat --out NEW", ["AT/flat", "labels", "sub-folder"]),
    "torn YAML": ("pretrain AT/torn.yaml --data digits --out NEW", ["AT/torn.yaml", "not valid YAML", "line 1"]),
    "binary YAML": ("pretrain AT/binary.yaml --data digits --out NEW", ["AT/binary.yaml", "cannot be read"]),
    "list for a recipe": ("pretrain AT/list.yaml --data digits --out NEW", ["AT/list.yaml", "dictionary"]),
    "empty YAML": ("pretrain AT/nothing.yaml --data digits --out NEW", ["AT/nothing.yaml", "dictionary"]),
    "endless YAML": ("show AT/long.yaml", ["AT/long.yaml", "too large"]),
    "missing YAML": ("pretrain AT/nowhere.yaml --data digits --out NEW", ["AT/nowhere.yaml", "No such file"]),
    "init is no run": ("pretrain mae_tiny --data digits --out NEW --init AT/empty", ["AT/empty", "run.yaml"]),
    "init of another width": ("pretrain mae_tiny --data digits --out NEW --init AT/run", ["AT/run", "another shape"]),
    "seeds that are none": ("pretrain mae_tiny --data digits --out NEW --seeds 0,a", ["0,a", "0,1,2"]),
    "the same seed twice": ("pretrain mae_tiny --data digits --out NEW --seeds 1,1", ["1,1", "different"]),
    "no recipe": ("pretrain", ["a recipe", "--out", "--resume"]),
    "no out": ("pretrain mae_tiny --data digits", ["--out"]),
    "resume what is no run": ("pretrain --resume AT/empty", ["AT/empty", "run.yaml"]),
    "a setting of another kind": (
        "pretrain mae_tiny --data scenes --out AT/new --serving.mode.epochs 4",
        ["serving.mode.epochs", "Of kind live", "--serving.mode '{kind: NAME, epochs: VALUE}'"],
    ),
    "resume with a recipe": ("pretrain mae_tiny --resume AT/run", ["--resume AT/run", "no recipe", "--workers"]),
    "resume with steps": ("pretrain --resume AT/run --steps 9", ["--resume AT/run", "no steps"]),
    "resume with settings": ("pretrain --resume AT/run --batch 9", ["--resume", "--batch", "--data", "--workers"]),
    "size not filled": ("pretrain mae_tiny --data digits --out NEW --models.student.size 50", ["50", "48 or 56"]),
    "view of another size": (
        "pretrain mae_tiny --data digits --out NEW --method.views.view1.size 40",
        ["method.views.view1.size", "40", "48"],
    ),
    "no vision transformer": ("show mae_tiny --models.student.arch resnet50", ["resnet50", "vit_*"]),
    "unknown architecture": ("show mae_tiny --models.student.arch vit_teeny", ["vit_teeny", "timm"]),
    "heads that do not divide": ("show mae_tiny --models.student.heads 3", ["num_heads", "3"]),
    "unknown evaluation": ("evaluate zeroshot AT/run --data digits:test", ["zeroshot", "'zero-shot'"]),
    "evaluate what is no run": ("evaluate knn AT/empty --data digits:test", ["AT/empty", "run.yaml"]),
    "evaluate without texts": ("evaluate zero-shot AT/run --data digits:test", ["AT/run", "knn or linear"]),
    "unknown step": ("evaluate knn AT/run@77 --data digits:test", ["AT/run@77", "0, 1"]),
    "no average": ("evaluate knn AT/run:ema --data digits:test", ["AT/run:ema", "AT/run:student"]),
    "prompt for knn": ("evaluate knn AT/run --data digits:test --prompt x", ["--prompt", "zero-shot"]),
    "classify without categories": ("evaluate classify AT/run --data digits:test", ["AT/run", "no category head"]),
    "dense-probe without masks": ("evaluate dense-probe AT/run --data digits:test", ["digits:test", "no masks"]),
    "masks without a folder": ("evaluate dense-probe AT/run --data masks:AT/flat", ["masks:AT/flat", "IMAGES,MASKS"]),
    "no samples": ("evaluate knn AT/run --data digits:test --limit 0", ["limit", "greater than 0"]),
    "json inside a file": ("evaluate knn AT/run --data digits:test --json AT/names.txt/x", ["AT/names.txt/x"]),
    "report of no run": ("report AT/empty", ["AT/empty", "run.yaml"]),
    "copy over a file": ("cp mae_tiny AT/names.txt", ["AT/names.txt", "exists already"]),
    "copy into a file": ("cp mae_tiny AT/names.txt/x.yaml", ["AT/names.txt/x.yaml", "written"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(mistake: str, place: Path, tmp_path: Path, capsys: Capture) -> None:
    line, expected = MISTAKES[mistake]
    before = contents(place)
    code = command([word.replace("AT", str(place)).replace("NEW", f"{tmp_path}/new") for word in line.split()])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.startswith("onestage: ") and captured.err.count("onestage: ") == 1
    assert captured.out == "" and "Traceback" not in captured.err
    for fragment in expected:
        assert fragment.replace("AT", str(place)) in captured.err
    assert not list(tmp_path.iterdir()), "nothing may be written to --out"
    assert contents(place) == before


def contents(folder: Path) -> dict[str, int]:
    """Every file of a folder and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ls recipe", "recipes"),
        ("ls --batch 3", "--batch"),
        ("evaluate knn somewhere", "--data"),
        ("pretrain mae_tiny extra --data digits --out NEW", "extra"),
        ("pretrain mae_tiny --data digits --out NEW --steps few", "--steps"),
        ("pretrain mae_tiny --out NEW --data", "--data"),
        ("evaluate knn somewhere --data digits --pool max", "max"),
        ("cp mae_tiny", "onestage cp"),
    ],
)
def test_words_that_do_not_fit_a_verb(line: str, named: str, tmp_path: Path, capsys: Capture) -> None:
    assert command(line.replace("NEW", f"{tmp_path}/new").split()) == 2
    message = capsys.readouterr().err
    assert named in message and "--help" in message and "Traceback" not in message
    assert not list(tmp_path.iterdir())
