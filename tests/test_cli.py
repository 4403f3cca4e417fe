"""The command line: what it answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from onestage import api, recipes
from onestage.cli import VERBS, command
from onestage.spec import Stopped
from onestage.storage import load_checkpoint
from typed import SMALL, Capture


def test_help_names_every_verb(capsys: Capture) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert command(words) == 0
        shown = capsys.readouterr().out
        assert all(f"onestage {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_its_options(verb: str, capsys: Capture) -> None:
    assert command([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"onestage {verb}" in shown
    for option in VERBS[verb].__annotations__:
        optional = hasattr(VERBS[verb], option) and option not in {"recipe", "what", "case"}
        assert f"--{option.replace('_', '-')}" in shown or not optional
    assert not re.search(r"None|STR|INT|FLOAT|default: \)", shown), "what an option takes has a name of its own"


def test_version(capsys: Capture) -> None:
    assert command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("onestage ")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("recipes", recipes.names()),
        ("methods", ["P_hat", "supervised", "uta", "mae", "Gaussian (cosine)", "Boltzmann (batch)"]),
        ("evaluations", ["zero-shot", "retrieval", "knn", "linear", "classify", "dense-probe"]),
        ("sources", ["scenes[:train|test]", "digits[:train|test]", "masks:IMAGES,MASKS", "FOLDER"]),
    ],
)
def test_ls(what: str, expected: list[str], capsys: Capture) -> None:
    assert command(["ls", what]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in expected)
    assert all(line == line.rstrip() for line in shown.splitlines())


@pytest.mark.parametrize("name", [*recipes.names(), "clip_tiny:smoke"])
def test_show_is_the_recipe_with_its_size(name: str, capsys: Capture) -> None:
    assert command(["show", name]) == 0
    shown = capsys.readouterr().out
    text, terms, sizes, cite = shown.strip().rsplit("\n\n", 3)
    assert yaml.safe_load(text)["name"] == name
    method = recipes.recipe(name).method
    groups = {re.sub(r"^local\d+", "local", term) for term in method.terms}  # small crops have one line
    assert len(terms.splitlines()) == 1 + len(groups)
    assert "parameters" in sizes and "GFLOP" in sizes and recipes.recipe(name).student in sizes
    assert cite == f"cite: {method.cite}"


@pytest.mark.parametrize("name", ["uta_tiny", "clip_tiny", "mae_b16", "supervised_tiny:smoke"])
def test_a_copy_shows_the_same(name: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "new folder" / "my.yaml"
    assert command(["cp", name, str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    assert command(["show", name]) == 0
    original = capsys.readouterr().out
    assert command(["show", str(file)]) == 0
    assert capsys.readouterr().out == original


def test_settings_reach_any_leaf(capsys: Capture) -> None:
    line = "show mae_b16 --optimiser.groups.all.lr 1e-3 --models.student.depth=2 --optimiser.groups.all.clip 3"
    settings = "--optimiser.groups.all.betas [0.9,0.98] --method.terms.pixels.weight 0.5 --epochs null --steps 7"
    assert command([*line.split(), *settings.split()]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.split("\n\n")[0])
    group = shown["optimiser"]["groups"]["all"]
    assert (group["lr"], group["clip"], group["betas"]) == (1e-3, 3.0, [0.9, 0.98])
    assert shown["models"]["student"]["depth"] == 2
    assert shown["method"]["terms"]["pixels"]["weight"] == 0.5
    assert (shown["epochs"], shown["steps"]) == (None, 7)


def test_an_edited_copy_trains(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    assert command(["cp", "mae_tiny", str(file)]) == 0
    plain = yaml.safe_load(file.read_text())
    plain |= {"name": "mine", "steps": 2, "batch": 4, "workers": 0, "precision": "fp32"}
    plain["models"]["student"] |= {"width": 32, "depth": 1}
    file.write_text(yaml.safe_dump(plain))
    assert command(["pretrain", str(file), "--data", "digits", "--out", f"{tmp_path}/run"]) == 0
    resolved = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert (resolved["name"], resolved["data"], resolved["models"]["student"]["depth"]) == ("mine", "digits", 1)
    assert load_checkpoint(tmp_path / "run", None).step == 2


def test_seeds_are_runs_of_their_own(tmp_path: Path) -> None:
    words = ["pretrain", "mae_tiny", "--data", "digits", "--out", f"{tmp_path}/runs", "--seeds", "3,5", "--steps", "1"]
    assert command([*words, *SMALL]) == 0
    made = tmp_path / "runs"
    assert {path.name for path in made.iterdir()} == {"seed_3", "seed_5", "seeds.json"}
    assert json.loads((made / "seeds.json").read_text())["seeds"] == [3, 5]
    assert [yaml.safe_load((made / f"seed_{seed}" / "run.yaml").read_text())["seed"] for seed in (3, 5)] == [3, 5]
    first, second = (load_checkpoint(made / f"seed_{seed}", None).tensors["model"] for seed in (3, 5))
    key = "predictors.pixels.embed.weight"
    assert not first[key].equal(second[key])


def test_one_image_is_seen_again_and_again(place: Path, tmp_path: Path, capfd: Capture) -> None:
    """`check` says what is odd about it; training on it is the user's own business."""
    assert command(["check", "mae_tiny", "--data", f"{place}/one", *SMALL]) == 1
    assert "holds 1 samples, fewer than one batch of 8" in capfd.readouterr().out
    words = ["pretrain", "mae_tiny", "--data", f"{place}/one", "--out", f"{tmp_path}/run", "--steps", "2", *SMALL]
    assert command(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and np.isfinite(lines[-1]["loss"])


def test_a_folder_that_does_not_decode_names_its_quarantine(place: Path, tmp_path: Path, capfd: Capture) -> None:
    words = ["pretrain", "mae_tiny", "--data", f"{place}/junk", "--out", f"{tmp_path}/run", "--steps", "2", *SMALL]
    assert command(words) == 2
    message = capfd.readouterr().err
    assert "not an image" in message and "quarantine.jsonl" in message and "Traceback" not in message


def test_check_answers_by_its_exit_code(capsys: Capture) -> None:
    assert command(["check", "mae_tiny", "--data", "digits", *SMALL]) == 0
    assert "nothing found: ready to train" in capsys.readouterr().out
    assert command(["check", "mae_tiny", "--data", "digitz", *SMALL]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("- 'digitz'") and shown[-1] == "1 found"


def test_evaluate_prints_a_table_and_writes_json(place: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "results" / "knn.json"
    words = ["evaluate", "knn", f"{place}/run", "--data", "digits:test", "--limit", "30", "--json", str(file)]
    assert command(words) == 0
    answer = json.loads(file.read_text())
    assert set(answer) == {"task", "model", "data", "metrics", "samples", "seconds", "version"}
    assert (answer["task"], answer["data"], answer["samples"]) == ("knn", "digits:test", 30)
    shown = capsys.readouterr().out
    assert shown.startswith("knn of ") and f"{answer['metrics']['top1']:.4f}" in shown


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 2, "onestage: interrupted; a run goes on with: onestage pretrain --resume DIR\n"),
        (Stopped("stopped at step 3"), 143, "stopped at step 3\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_what_ends_a_command_from_outside(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def end(what: str) -> str:
        raise raised

    monkeypatch.setattr(api, "ls", end)
    assert command(["ls"]) == code
    assert capsys.readouterr().err == said
