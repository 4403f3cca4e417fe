"""DeiT's distillation: the likelihood against loops, the row against timm's task, both heads at inference, teachers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onestage import api, pretraining
from onestage.data import open_source
from onestage.encoders import Vit
from onestage.likelihood import Scores
from onestage.methods import METHODS
from onestage.objective import Answers, Ask, Method, Objective, asks, unblended
from onestage.ops import place_of
from onestage.spec import UserError, from_plain, to_plain
from onestage.storage import load_checkpoint
from onestage.teachers import load
from onestage.types import POOLED, Batch, Geometry, Target, Tokens, View
from onestage.views import Resize
from small import small
from stepping import brief_categories, brief_teacher
from typed import draw

STUDENT = Vit(arch="vit_tiny_patch16_224", size=32, patch=8, width=32, depth=2, heads=2, class_tokens=2)


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_scores_equal_loops(form: str) -> None:
    draw = torch.Generator().manual_seed(0)
    guess = torch.randn(2, 2, 4, generator=draw).requires_grad_()
    other = 2 * torch.randn(2, 2, 4, generator=draw)
    weight = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    loss = Scores(form=form, temperature=2.5).build(4)(guess, Target(other, None, weight))
    loss.backward()
    tau, total, slope = 1.0 if form == "hard" else 2.5, 0.0, torch.zeros(2, 2, 4, dtype=torch.float64)
    for sample in range(2):
        for place in range(2):
            share = float(weight[sample, place] / weight.sum())
            own, told = guess[sample, place].tolist(), other[sample, place].tolist()
            said = [math.exp(value / tau) / sum(math.exp(each / tau) for each in own) for value in own]
            truth = [float(value == max(told)) for value in told]
            if form == "soft":
                truth = [math.exp(value / tau) / sum(math.exp(each / tau) for each in told) for value in told]
            for place_of_category, (p, q) in enumerate(zip(truth, said, strict=True)):
                total += share * tau**2 * (p * (math.log(p) - math.log(q)) if p else 0.0)
                slope[sample, place, place_of_category] = share * tau * (q - p)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(guess.grad.double(), slope, rtol=1e-4, atol=1e-6)


def distilled(classes: int, form: str = "hard") -> tuple[Method, Objective]:
    row = unblended(METHODS["deit_distilled"])
    terms = row.terms | {"distilled": dataclasses.replace(row.terms["distilled"], likelihood=Scores(form=form))}
    row = dataclasses.replace(row, terms=terms)
    torch.manual_seed(0)
    return row, Objective(row, {"student": STUDENT}, {"teacher": Answers((4, 4), 0, 32, 0, classes)}, classes)


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_the_row_is_timms_token_distillation(form: str) -> None:
    """The same student, teacher and images: the same loss. timm's heads are ours multiplied out."""
    task_of, timm = pytest.importorskip("timm.task"), pytest.importorskip("timm")
    row, objective = distilled(5, form)
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.2)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    student = timm.create_model("deit_tiny_distilled_patch16_224", **sizes)
    ours = objective.encoder("student").backbone.state_dict()
    ours["dist_token"] = ours.pop("reg_token")
    table, linear = objective.target("category").weight, objective.predictor("category").map
    taught = objective.predictor("distilled").map
    heads = {"head.weight": table @ linear.weight, "head.bias": table @ linear.bias}
    student.load_state_dict(ours | heads | {"head_dist.weight": taught.weight, "head_dist.bias": taught.bias})
    teacher = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    task = task_of.TokenDistillationTask(
        student, teacher, criterion, distill_type=form, task_loss_weight=0.5, temperature=3.0, verbose=False
    )
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([0, 4, 2])
    mean, std = (torch.tensor(student.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    normed = {"imagenet": (0.485, 0.456, 0.406)}[STUDENT.normalise]
    images_of_timm = (images - torch.tensor(normed).view(1, 3, 1, 1)) / torch.tensor((0.229, 0.224, 0.225)).view(
        1, 3, 1, 1
    )
    expected = task.train()(images_of_timm, labels)
    there = (
        images_of_timm * std + mean - torch.tensor(teacher.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    ) / torch.tensor(teacher.pretrained_cfg["std"]).view(1, 3, 1, 1)
    with torch.no_grad():
        scores = teacher(there)
    cells = place_of(torch.full((3, 1), POOLED))
    geometry = Geometry(torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 3), torch.zeros(3, dtype=torch.bool))
    answer = Tokens(scores.unsqueeze(1), scores, cells, (4, 4), geometry)
    (ask,) = asks(row)
    assert ask == Ask("teacher", "view1", "categories")
    batch = Batch(torch.arange(3), {"view1": View(images, geometry)}, {}, None, labels)
    losses = objective.eval()(batch, {ask: answer})
    torch.testing.assert_close(losses.terms["category"], expected["task_loss"])
    torch.testing.assert_close(losses.terms["distilled"], expected["distill_loss"])
    torch.testing.assert_close(losses.total, expected["loss"])
    losses.total.backward()
    expected["loss"].backward()
    token = objective.encoder("student").backbone.reg_token
    torch.testing.assert_close(token.grad, student.dist_token.grad, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled")
    teacher = brief_categories(str(folder / "teacher"))
    recipe = small("deit_distilled", steps=2, teachers={"teacher": teacher})
    pretraining.start(recipe, folder / "run", [])
    return folder / "run"


@torch.no_grad()
def test_both_heads_are_averaged(run: Path) -> None:
    """Probabilities of the class token's head and of the distillation token's, by loops over the run's weights."""
    weights = {key: value.double() for key, value in load_checkpoint(run, None).tensors["model"].items()}
    model, source = load(str(run)), open_source("digits:test")
    samples = [source[50 * number] for number in range(6)]
    view = Resize(size=model.size)
    plan = view.plan(np.random.default_rng(0), 32, 32)
    pixels = torch.stack([view.resized(sample.picture.decode(), plan) for sample in samples]).float() / 255
    tokens, (encoder, *_) = model.tokens(pixels, "raw"), model.parts()
    rows = encoder.backbone.forward_features(encoder.normalise(pixels)).double()
    assert tokens.second is not None and rows.shape[1] == 2 + 16
    scores, hits = model.tokens(pixels, "categories"), 0
    assert model.width("categories") == scores.pooled.shape[1] == 10
    for sample in range(6):
        found = []
        for row, name in ((rows[sample, 0], "category"), (rows[sample, 1], "distilled")):
            logits = weights[f"predictors.{name}.map.weight"] @ row + weights[f"predictors.{name}.map.bias"]
            logits = weights["targets.category.weight"] @ logits if name == "category" else logits
            exponents = [math.exp(value) for value in logits.tolist()]
            found.append([value / sum(exponents) for value in exponents])
        expected = torch.tensor([(a + b) / 2 for a, b in zip(*found, strict=True)])
        torch.testing.assert_close(scores.pooled[sample].exp(), expected, atol=1e-5, rtol=1e-4)
        hits += int(expected.argmax()) == samples[sample].label
    got = api.evaluate("classify", run, data="digits:test", limit=20)
    assert 0 <= got["metrics"]["top1"] <= 1 and hits <= 6


def test_two_of_them_are_averaged_too(run: Path, tmp_path: Path) -> None:
    api.average(run, f"{run}@1", alpha=0.5, out=tmp_path / "line")
    own, line = (load_checkpoint(at, None).tensors["model"] for at in (run, tmp_path / "line"))
    first = load_checkpoint(run, "1").tensors["model"]["predictors.distilled.map.weight"]
    middle = (own["predictors.distilled.map.weight"] + first) / 2
    torch.testing.assert_close(line["predictors.taught.map.weight"], middle)
    assert load(str(tmp_path / "line")).width("categories") == 10


def test_what_does_not_fit_is_said(run: Path, tmp_path: Path) -> None:
    clip = brief_teacher(tmp_path)
    with pytest.raises(UserError, match=r"it has no category head.*supervised_tiny"):
        pretraining.start(small("deit_distilled", teachers={"teacher": clip}), tmp_path / "a", [])
    recipe = small("deit_distilled", teachers={"teacher": str(run)}, vit={"class_tokens": 1})
    with pytest.raises(UserError, match=r"models.student.class_tokens.*set it to 2"):
        pretraining.start(recipe, tmp_path / "b", [])
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        draw(tmp_path / "pets" / name / "a.png", number)
    recipe = small("deit_distilled", teachers={"teacher": str(run)}, data=str(tmp_path / "pets"))
    with pytest.raises(UserError, match=r"teacher 'teacher': .*zero, one, .*pets has cat, dog.*same order"):
        pretraining.start(recipe, tmp_path / "c", [])
    plain = to_plain(METHODS["deit_distilled"])
    plain["terms"]["distilled"]["likelihood"] = {"kind": "gaussian", "form": "squared"}
    with pytest.raises(UserError, match="categories and likelihood: scores go together"):
        from_plain(Method, plain)
    plain = to_plain(METHODS["deit_distilled"])
    plain["terms"]["distilled"]["target"]["rows"] = "all"
    with pytest.raises(UserError, match="scores of the image: rows: pooled"):
        from_plain(Method, plain)
    with pytest.raises(UserError, match=r"class_tokens: 2 is for vit_\*"):
        dataclasses.replace(STUDENT, positions="relative").build(frozenset())
    assert not any((tmp_path / name).exists() for name in "abc")
