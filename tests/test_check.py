"""`check` finds what would waste hours: each fault is planted here, and a sound set-up gives none."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onestage import api, pretraining
from onestage.teachers import RunTeacher, load
from typed import draw

MODEL = {"width": "32", "depth": "1", "heads": "2"}
TEXT = {"width": "16", "depth": "1", "joint": "16"}
LEAN = {"batch": "8", "workers": "0", "precision": "fp32"}
STUDENT = LEAN | {f"models.student.{key}": value for key, value in MODEL.items()}
PAIR = STUDENT | {f"models.text.{key}": value for key, value in TEXT.items()} | {"watch.every": "0"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of CLIP, two steps long."""
    run = tmp_path_factory.mktemp("check") / "teacher"
    recipe = api.make_recipe("clip_tiny", data="scenes", steps=2, settings=PAIR)
    pretraining.start(recipe, run, [], lambda line: None)
    return str(run)


def faults(recipe: str, settings: Mapping[str, str], **given: str) -> list[str]:
    """What `check` finds."""
    return api.check(recipe, settings=settings, **given)


def captioned(folder: Path, captions: list[str]) -> Path:
    """Pictures of noise, each with its caption (empty: none)."""
    folder.mkdir()
    lines = []
    for number, caption in enumerate(captions):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png"} | ({"text": caption} if caption else {})))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_sound_set_ups_have_no_fault(teacher: str, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))
    assert faults("clip_tiny", PAIR, data="scenes", val="scenes:test", classes=str(names)) == []
    assert faults("clip_tiny", PAIR, data="scenes", init=teacher) == []
    assert faults("mae_tiny", STUDENT, data="digits") == []
    for row in ("uta_tiny", "fd_tiny"):
        assert faults(row, STUDENT, data="scenes", teacher=teacher) == []


def test_different_captions_have_no_fault(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "data", [f"number {number}" for number in range(8)])
    assert faults("clip_tiny", PAIR, data=str(folder)) == []


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults("mae_tiny", STUDENT | {"optimiser.rule": "none"}, data="digits")
    assert not list(tmp_path.iterdir())


def test_normalisation_mixed_up_with_the_teachers(teacher: str) -> None:
    (fault,) = faults("uta_tiny", STUDENT | {"models.student.normalise": "clip"}, data="scenes", teacher=teacher)
    assert "normalisation mixed up" in fault and "set models.student.normalise: half" in fault


def test_normalisation_mixed_up_with_the_weights_to_start_from(teacher: str) -> None:
    settings = PAIR | {"models.student.normalise": "imagenet"}
    (fault,) = faults("clip_tiny", settings, data="scenes", init=teacher)
    assert "models.student.normalise: imagenet" in fault and "normalised by half" in fault


def test_pixels_that_are_not_normalised() -> None:
    (fault,) = faults("mae_tiny", STUDENT | {"models.student.normalise": "none"}, data="digits")
    assert "models.student.normalise: none" in fault


def test_a_temperature_for_towers_that_agree_already(teacher: str) -> None:
    (fault,) = faults("uta_tuned_tiny", PAIR, data="scenes")
    assert fault.startswith("terms.pair.likelihood: its temperature stays at 0.01") and "--init" in fault
    assert faults("uta_tuned_tiny", PAIR, data="scenes", init=teacher) == []


def test_grids_that_differ(teacher: str) -> None:
    (fault,) = faults("uta_tiny", STUDENT | {"models.student.size": "40"}, data="scenes", teacher=teacher)
    assert "5x5" in fault and "6x6" in fault and "needs size 48" in fault


def test_a_size_that_patches_do_not_fill() -> None:
    (fault,) = faults("mae_tiny", STUDENT | {"models.student.size": "50"}, data="digits")
    assert "models.student.size: 50" in fault and "use 48 or 56" in fault


def test_a_view_of_another_size_than_its_encoder() -> None:
    (fault,) = faults("mae_tiny", STUDENT | {"method.views.view1.size": "40"}, data="digits")
    assert "method.views.view1.size: 40" in fault and "48" in fault


def test_weights_that_match_only_in_part(teacher: str) -> None:
    (fault,) = faults("clip_tiny", PAIR | {"models.student.depth": "2"}, data="scenes", init=teacher)
    assert "12 are not in it (student.backbone.blocks.1.norm1.weight, " in fault and "attn.qkv.weight" in fault


def test_weights_of_another_shape(teacher: str) -> None:
    (fault,) = faults("clip_tiny", PAIR | {"models.student.width": "64"}, data="scenes", init=teacher)
    assert "another shape" in fault and "same architecture" in fault


@pytest.mark.parametrize("plant", ["training mode", "gradients"])
def test_a_teacher_that_is_not_frozen(plant: str, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(reference: str, device: torch.device) -> RunTeacher:
        model = load(reference, device)
        assert isinstance(model, RunTeacher)
        if plant == "training mode":
            model.encoder.train()
        else:
            model.encoder.requires_grad_(True)
        return model

    monkeypatch.setattr(sys.modules["onestage.pretraining.prepare"], "load", careless)
    (fault,) = faults("uta_tiny", STUDENT, data="scenes", teacher=teacher)
    assert fault.startswith("teachers.teacher: ") and plant in fault


def test_a_teacher_that_answers_nonsense(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reference: str, device: torch.device) -> RunTeacher:
        model = load(reference, device)
        assert isinstance(model, RunTeacher)
        next(iter(model.encoder.parameters())).fill_(torch.nan)
        return model

    monkeypatch.setattr(sys.modules["onestage.pretraining.prepare"], "load", broken)
    (fault,) = faults("uta_tiny", STUDENT, data="scenes", teacher=teacher)
    assert fault == "terms.align: its first loss is nan"


def test_captions_that_are_all_equal(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "data", ["a picture"] * 8)
    (fault,) = faults("clip_tiny", PAIR, data=str(folder))
    assert "all captions are equal ('a picture')" in fault


def test_captions_that_are_missing_here_and_there(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "data", [f"number {number}" if number % 2 else "" for number in range(8)])
    (fault,) = faults("clip_tiny", PAIR, data=str(folder))
    assert "4 of 8 samples have none" in fault


def test_augmentations_that_make_captions_false() -> None:
    (fault,) = faults("clip_tiny", PAIR | {"method.views.view1.flip": "0.5"}, data="scenes")
    assert "views.view1: flip can make the captions of scenes false" in fault


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cat", "dog"], "names 2 classes, but scenes:train has 10 labels"),
        (["zero"] * 10, "names 'zero' more than once"),
    ],
)
def test_a_class_list_that_does_not_fit(names: list[str], said: str, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("\n".join(names))
    (fault,) = faults("clip_tiny", PAIR, data="scenes", classes=str(file))
    assert said in fault and str(file) in fault


def test_a_class_list_is_for_the_validation_data_where_there_are_any(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog")
    folder = captioned(tmp_path / "data", [f"number {number}" for number in range(8)])
    (fault,) = faults("clip_tiny", PAIR, data=str(folder), val="scenes:test", classes=str(file))
    assert "names 2 classes, but scenes:test has 10 labels" in fault


def test_a_learning_rate_for_a_thirty_times_larger_batch() -> None:
    settings = STUDENT | {"optimiser.rule": "none", "optimiser.reference_batch": "240"}
    (fault,) = faults("mae_tiny", settings, data="digits")
    assert "found at batch 240, 30 times this batch of 8" in fault and "use rule: linear" in fault
    assert faults("mae_tiny", settings | {"optimiser.rule": "linear"}, data="digits") == []
    assert faults("mae_tiny", settings | {"optimiser.reference_batch": "16"}, data="digits") == []


def test_a_folder_whose_files_all_fail_to_decode(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture %d" % number)
    (fault,) = faults("mae_tiny", STUDENT, data=str(tmp_path))
    assert "every file that was tried fails to decode (8 of 8; first: not an image)" in fault


def test_some_files_that_fail_to_decode(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "data", [f"number {number}" for number in range(9)])
    (folder / "3.png").write_bytes(b"")
    (fault,) = faults("mae_tiny", STUDENT, data=str(folder))
    assert "1 of 9 samples cannot be used (first: the file is empty)" in fault


def test_fewer_samples_than_a_batch(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "data", ["one", "two"])
    (fault,) = faults("mae_tiny", STUDENT, data=str(folder))
    assert "holds 2 samples, fewer than one batch of 8" in fault


def test_hiding_that_hides_nothing(teacher: str) -> None:
    settings = STUDENT | {"method.inputs.masked.parts.image.hide.cells": "1"}  # of 256: a seventh of one of 36
    found = faults("eva_tiny", settings, data="scenes", teacher=teacher)
    assert "inputs.masked.parts.image.hide: hides none of 6x6 cells" in found[0]


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog")
    settings = PAIR | {"optimiser.rule": "none", "method.views.view1.flip": "0.5"}
    found = faults("clip_tiny", settings, data="scenes", classes=str(file))
    assert [fault.split(":")[0] for fault in found] == ["views.view1", "classes", "optimiser"]


@pytest.mark.parametrize(
    ("recipe", "given", "said"),
    [
        ("uta_tiny", {"data": "scenes"}, "was given none"),
        ("uta_tiny", {"data": "scenes", "teacher": "nowhere"}, "nowhere: not a model"),
        ("mae_tiny", {"data": "nowhere"}, "no such folder"),
        ("mae_tiny", {"data": "digits", "val": "nowhere"}, "no such folder"),
        ("mae_tiny", {"data": "digits", "init": "nowhere"}, "nowhere: not a model"),
        ("mae_tiny", {}, "no data"),
    ],
)
def test_what_stops_a_run_is_a_fault_too(recipe: str, given: dict[str, str], said: str) -> None:
    (fault,) = faults(recipe, STUDENT, **given)
    assert said in fault


def test_what_would_be_watched_is_tried(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("cat", "dog"):
        draw(folder / name / "a.png", 0)
    lean = STUDENT | {"watch.every": "5"}
    assert faults("supervised_tiny", lean, data="digits", val="digits:test") == []
    (found,) = faults("supervised_tiny", lean, data="digits", val=str(folder))
    assert found.startswith("watch.tasks: classify: live has the classes zero, one") and "cat, dog" in found
    assert faults("mae_tiny", lean | {"watch.tasks": '["classify"]'}, data="digits", val="digits:test") == [
        "watch.tasks: classify: live has no category head of its own; use a run of a method that learns categories "
        "(onestage ls methods: target 'category embedding'), or judge it by knn or linear"
    ]


def test_a_view_that_no_caption_is_read_with_may_change_as_it_likes() -> None:
    """M3I reads captions with its first view; the second is cropped and recoloured, which makes none of them false."""
    assert faults("m3i_text_tiny", PAIR, data="scenes") == []
    read = PAIR | {"method.views.view1.flip": "0.5"}
    (fault,) = faults("m3i_text_tiny", read, data="scenes")
    assert fault.startswith("views.view1: flip can make the captions of scenes false")
