"""The line between two runs (WiSE-FT): its weights in a loop, its ends, its curve, and what cannot be averaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from onestage import api, api_average, pretraining
from onestage.cli import command
from onestage.report import write_report
from onestage.spec import UserError, read_yaml, to_yaml
from onestage.storage import load_checkpoint
from onestage.teachers import load

LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}
PAIR = LEAN | {"models.text.width": "16", "models.text.depth": "1", "models.text.joint": "16"}
WORDS = ["a red seven", "a photo of a dog"]


def trained(out: Path, recipe: str, settings: Mapping[str, str], **given: str) -> Path:
    """A run of two steps."""
    made = api.make_recipe(recipe, steps=2, data="digits", settings=settings, **given)
    pretraining.start(made, out, [], lambda line: None)
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of CLIP, and one that went on from it."""
    folder = tmp_path_factory.mktemp("runs")
    first = trained(folder / "first", "clip_tiny", PAIR)
    second = trained(folder / "second", "clip_tiny", PAIR | {"seed": "1"}, init=str(first))
    return first, second


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run, None).tensors["model"]


def test_every_weight_is_the_weighted_mean(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = api.average(*runs, out=tmp_path / "mean", alpha=0.3)
    found, first, second = weights(out), weights(runs[0]), weights(runs[1])
    names = {"predictors.joint.": "predictors.pair.", "likelihoods.joint.": "likelihoods.pair."}
    moved = 0
    for key, tensor in found.items():
        own = key
        for name, before in names.items():
            own = own.replace(name, before)
        if not tensor.is_floating_point():
            assert tensor.equal(second[own]), f"{key} counts"
            continue
        some = [one.double().flatten()[:400].tolist() for one in (tensor, first[own], second[own])]
        for value, x, y in zip(*some, strict=True):
            assert value == pytest.approx(0.7 * x + 0.3 * y, abs=1e-6)
            moved += x != y
    assert moved > 1000 and "likelihoods.joint.log_scale" in found
    assert any(key.startswith("encoders.text.") for key in found)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_are_the_runs_themselves(alpha: float, runs: tuple[Path, Path], tmp_path: Path) -> None:
    model, end = load(str(api.average(*runs, out=tmp_path / "end", alpha=alpha))), load(str(runs[int(alpha)]))
    pixels = torch.rand(2, 3, 48, 48)
    assert model.tokens(pixels, "joint").pooled.equal(end.tokens(pixels, "joint").pooled)
    assert model.text(WORDS).equal(end.text(WORDS))
    assert model.scale == pytest.approx(end.scale, rel=1e-6)


def test_the_curve_and_its_figure(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    asked = ["--tasks", "zero-shot", "knn", "--data", "digits:test", "--alphas", "0.5", "0", "1", "--limit", "40"]
    assert command(["average", *map(str, runs), *asked, "--out", str(out)]) == 0
    told = json.loads((out / "average.json").read_text())
    assert [(point["alpha"], point["task"]) for point in told["curve"]] == [
        (alpha, task) for alpha in (0.0, 0.5, 1.0) for task in ("zero-shot", "knn")
    ]
    for point in told["curve"]:
        model = {0.0: runs[0], 0.5: out, 1.0: runs[1]}[point["alpha"]]
        alone = api.evaluate(point["task"], model, data="digits:test", train="digits", limit=40)
        assert point["metrics"]["top1"] == alone["metrics"]["top1"]
    text = write_report([out], tmp_path / "report.html").read_text()
    for said in ("Between two runs", "zero-shot, top1", "knn, top1", "alpha 0 is", "at alpha 0.5"):
        assert said in text, said
    assert "nothing was measured" not in text


def test_an_average_is_a_run_to_start_from_and_is_finished(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = api.average(*runs, out=tmp_path / "mean")
    begun = trained(tmp_path / "begun", "clip_tiny", PAIR | {"schedule.warmup": "0"}, init=str(out))
    start, mean = load_checkpoint(begun, "0").tensors["model"], weights(out)
    assert start["encoders.student.backbone.norm.weight"].equal(mean["encoders.student.backbone.norm.weight"])
    assert pretraining.resume(out, lambda line: None).step == 2


def test_a_copied_text_tower_and_a_trained_one(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """A student of a CLIP run copies its texts; going on with both towers trains them (UTA, A.1)."""
    student = trained(tmp_path / "student", "uta_tiny", LEAN, teacher=str(runs[0]))
    tuned = trained(tmp_path / "tuned", "clip_tiny", PAIR, init=str(student))
    model, a, b = load(str(api.average(student, tuned, out=tmp_path / "mean"))), load(str(student)), load(str(tuned))
    assert model.scale == pytest.approx((a.scale * b.scale) ** 0.5, rel=1e-5)
    assert not model.text(WORDS).equal(a.text(WORDS)) and model.text(WORDS).shape == a.text(WORDS).shape


def test_what_only_one_has_is_said(runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = trained(tmp_path / "labelled", "supervised_tiny", LEAN)
    said: list[str] = []
    monkeypatch.setattr(api_average, "say", said.append)
    out = api.average(runs[0], labelled, out=tmp_path / "mean")
    assert f"category head: only {labelled} has one; taken as it is" in said
    assert f"text tower: only {runs[0]} has one; left out" in said
    api.evaluate("classify", out, data="digits:test", limit=20)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"models.student.width": "64"}, "width 32 and 64"), ({"models.text.joint": "8"}, "text towers are of two")],
)
def test_another_architecture(settings: dict[str, str], told: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = trained(tmp_path / "other", "clip_tiny", PAIR | settings)
    with pytest.raises(UserError, match=told):
        api.average(runs[0], other, out=tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_mistakes(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    with pytest.raises(UserError, match="from 0"):
        api.average(*runs, out=out, alpha=1.5)
    with pytest.raises(UserError, match="needs both"):
        api.average(*runs, out=out, tasks=["knn"])
    with pytest.raises(UserError, match="no evaluation 'zero_shot'"):
        api.average(*runs, out=out, tasks=["zero_shot"], data=["digits:test"])
    with pytest.raises(UserError, match="not a model"):
        api.average(runs[0], tmp_path / "nowhere", out=out)
    with pytest.raises(UserError, match="nothing is ever overwritten"):
        api.average(*runs, out=runs[0])
    assert not out.exists()


def test_tensors_of_two_shapes(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Settings that are empty say nothing; the weights do."""
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    bundle = read_yaml(other / "bundle" / "bundle.yaml")
    bundle["encoder"]["width"] = None
    (other / "bundle" / "bundle.yaml").write_text(to_yaml(bundle))
    wide = trained(tmp_path / "wide", "clip_tiny", PAIR | {"models.student.width": "64"})
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(wide / "checkpoints", other / "checkpoints")
    with pytest.raises(UserError, match=r"has the shapes \(.*32.*\) and \(.*64.*\)"):
        api.average(runs[0], other, out=tmp_path / "mean")
