"""Runs of ours as frozen models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage import api, pretraining
from onestage.likelihood import Gaussian
from onestage.methods.masked import MVP
from onestage.objective import Ema, Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear
from onestage.spec import UserError, from_plain, to_plain
from onestage.storage import load_checkpoint
from onestage.targets import Encoded
from onestage.teachers import RunTeacher, load, load_random
from onestage.types import Geometry, Piece, Tokens, View
from onestage.views import Block, Crop

WORDS = ["a red seven", "a small blue three left of a nine", "a photo of a dog"]
LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}
PAIR = LEAN | {"models.text.width": "16", "models.text.depth": "1", "models.text.joint": "16"}


def trained(out: Path, recipe: str, steps: int, settings: Mapping[str, str], **given: str) -> Path:
    """A short run."""
    made = api.make_recipe(recipe, steps=steps, settings=settings, **given)
    pretraining.start(made, out, [], lambda line: None)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CLIP over three steps, each of them watched and saved where it was the best."""
    folder = tmp_path_factory.mktemp("runs") / "clip"
    settings = PAIR | {"watch.every": "1", "watch.samples": "10", "saving.keep": "9"}
    return trained(folder, "clip_tiny", 3, settings, data="digits", val="digits:test")


@torch.no_grad()
def test_joint_rows_of_a_run_are_its_encoder_and_predictor(run: Path) -> None:
    teacher = load(str(run))
    assert isinstance(teacher, RunTeacher)
    prepared = pretraining.prepare(pretraining.read_run(run), None)
    weights = load_checkpoint(run, None).tensors["model"]
    prepared.objective.load_state_dict(weights)
    prepared.objective.eval()
    pixels = torch.rand(2, 3, teacher.size, teacher.size)
    raw: Tokens = prepared.objective.encoder("student")({"image": Piece(view=View(pixels, whole(pixels)))})
    matrix, bias = weights["predictors.pair.map.weight"], weights["predictors.pair.map.bias"]
    answer = teacher.tokens(pixels, "joint")
    torch.testing.assert_close(answer.pooled, raw.pooled @ matrix.T + bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.rows, raw.rows @ matrix.T + bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(teacher.tokens(pixels, "raw").rows, raw.rows, atol=1e-6, rtol=1e-6)
    for size in (teacher.size, teacher.size + 10):
        stored = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
        same = teacher.tokens(stored / 255, "joint").rows
        torch.testing.assert_close(teacher.tokens(stored, "joint").rows, same, atol=1e-5, rtol=1e-4)
    assert teacher.scale == pytest.approx(weights["likelihoods.pair.log_scale"].exp().item())
    assert not any(module.training for part in teacher.parts() for module in part.modules())


def whole(pixels: Tensor) -> Geometry:
    """The geometry of pictures seen whole."""
    box = torch.tensor([0.0, 0.0, *pixels.shape[-2:]]).expand(pixels.shape[0], 4)
    return Geometry(box, torch.zeros(pixels.shape[0], dtype=torch.bool))


def kept(run: Path) -> list[int]:
    """The steps that a run has kept."""
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*"))


def test_a_step_of_a_run(run: Path) -> None:
    pixels = torch.rand(2, 3, 48, 48)
    steps = kept(run)
    assert {0, 3} <= set(steps)
    answers = {step: load(f"{run}@{step}").tokens(pixels, "joint").pooled for step in steps}
    assert not any(answers[step].equal(answers[after]) for step, after in pairwise(steps))
    assert load(str(run)).tokens(pixels, "joint").pooled.equal(answers[3])
    assert load(f"{run}@3:student").tokens(pixels, "joint").pooled.equal(answers[3])
    best = load_checkpoint(run, None).meta["best_step"]
    assert best in answers and load(f"{run}@best").tokens(pixels, "joint").pooled.equal(answers[best])


@pytest.mark.parametrize(
    ("ending", "said"),
    [("@7", "kept are the steps STEPS, or @best"), ("@last", "no such checkpoint"), (":ema", "keeps no average")],
)
def test_what_a_run_does_not_hold(ending: str, said: str, run: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(f"{run}{ending}")
    assert said.replace("STEPS", ", ".join(map(str, kept(run)))) in str(caught.value)
    assert f"{run}{ending}" in str(caught.value)


def test_a_run_without_texts_says_so(tmp_path: Path) -> None:
    run = trained(tmp_path / "mae", "mae_tiny", 1, LEAN, data="digits")
    model = load(str(run))
    assert not (model.has_text or model.has_joint)
    pixels = torch.rand(1, 3, 48, 48)
    assert model.tokens(pixels, "raw").rows.shape == (1, 36, 32)
    with pytest.raises(UserError, match="no text tower"):
        model.text(WORDS)
    with pytest.raises(UserError, match="space: raw"):
        model.tokens(pixels, "joint")
    with pytest.raises(UserError, match="space: raw"):
        trained(tmp_path / "uta", "uta_tiny", 1, LEAN, data="digits", teacher=str(run))
    assert not (tmp_path / "uta").exists()


def test_a_random_image_encoder_keeps_the_texts(run: Path) -> None:
    pixels = torch.rand(2, 3, 48, 48)
    model, drawn, again, other = load(str(run)), *(load_random(str(run), seed) for seed in (0, 0, 1))
    assert drawn.text(WORDS).equal(model.text(WORDS)) and drawn.scale == model.scale
    answers = [one.tokens(pixels, "joint").pooled for one in (model, drawn, again, other)]
    assert answers[1].equal(answers[2])
    assert not answers[0].allclose(answers[1]) and not answers[1].allclose(answers[3])
    with pytest.raises(UserError, match="for runs only"):
        load_random("open_clip:local-dir:anywhere", 0)


def test_a_student_of_a_run_copies_its_texts(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(run, copy)
    texts, scale = load(str(copy)).text(WORDS), load(str(copy)).scale
    student = trained(tmp_path / "student", "uta_tiny", 1, LEAN, data="digits", teacher=str(copy))
    shutil.rmtree(copy)
    grandchild = trained(tmp_path / "grandchild", "uta_tiny", 1, LEAN, data="digits", teacher=str(student))
    for one in (student, grandchild):
        assert load(str(one)).text(WORDS).allclose(texts, atol=1e-6)
        assert load(str(one)).scale == pytest.approx(scale)


def test_the_average_of_a_run(tmp_path: Path) -> None:
    """A row with an EMA teacher: both models of the run can be had."""
    row = Method(
        name="averaged",
        cite="a row of this test",
        encoders={"student": Trained(), "slow": Ema(of="student", momentum=0.5, end=0.5)},
        views={"view1": Crop(flip=0.0)},
        inputs={
            "masked": Input(
                encoder="student", parts={"image": Part(of="view1", hide=Block(cells=16, of=36), mode="replace")}
            )
        },
        terms={
            "guess": Term(
                x="masked",
                y="view1",
                target=Encoded(encoder="slow", rows="hidden", space="raw"),
                predictor=Linear(),
                likelihood=Gaussian(form="cosine"),
            )
        },
    )
    plain = to_plain(api.make_recipe("mae_tiny", data="digits", steps=2, settings=LEAN)) | {"method": to_plain(row)}
    recipe = from_plain(pretraining.Recipe, plain)
    pretraining.start(recipe, tmp_path / "run", [], lambda line: None)
    weights = load_checkpoint(tmp_path / "run", None).tensors["model"]
    key = "backbone.blocks.0.attn.qkv.weight"
    for which, name in (("", "student"), (":student", "student"), (":ema", "slow")):
        model = load(f"{tmp_path}/run{which}")
        assert isinstance(model, RunTeacher)
        assert model.encoder.state_dict()[key].equal(weights[f"encoders.{name}.{key}"])
    assert not weights[f"encoders.student.{key}"].equal(weights[f"encoders.slow.{key}"])


def test_every_frozen_row_asks_for_a_teacher() -> None:
    assert MVP.named(Frozen) == ["teacher"]
    recipe = api.make_recipe("mvp_tiny", data="digits")
    with pytest.raises(UserError, match="onestage pretrain mvp_tiny --data digits --teacher runs/teacher"):
        pretraining.prepare(recipe, None)
