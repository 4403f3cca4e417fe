"""A run's own category head, judged directly: the same numbers as its objective's, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onestage import api, pretraining
from onestage.data import open_source
from onestage.likelihood import Boltzmann
from onestage.spec import UserError
from onestage.storage import load_checkpoint
from onestage.teachers import load
from onestage.teachers.category import CategorySide
from onestage.views import Resize
from typed import draw

LEAN = {
    **{"batch": "8", "workers": "0", "precision": "fp32"},
    **{f"models.student.{key}": value for key, value in {"width": "32", "depth": "1", "heads": "2"}.items()},
}
SHARP = {
    **{"method.terms.category.likelihood.temperature": "0.5", "method.terms.category.likelihood.normalise": "both"},
    **{"watch.every": "2", "watch.samples": "40"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Supervised, a few steps of digits with a tempered cosine head, watched every two."""
    folder = tmp_path_factory.mktemp("classify") / "run"
    recipe = api.make_recipe("supervised_tiny", data="digits", val="digits:test", steps=4, settings=LEAN | SHARP)
    pretraining.start(recipe, folder, [], lambda line: None)
    return folder


def slow_scores(run: Path, images: list[np.ndarray]) -> list[list[float]]:
    """Cosines over the temperature, in float64 loops, from the weights of the checkpoint."""
    weights = {key: value.double() for key, value in load_checkpoint(run, None).tensors["model"].items()}
    model = load(str(run))
    found = []
    for image in images:
        view = Resize(size=model.size)
        pixels = view.resized(image, view.plan(np.random.default_rng(0), image.shape[1], image.shape[0]))
        pooled = model.tokens(pixels[None].float() / 255, "raw").pooled[0].double()
        matrix, bias = weights["predictors.category.map.weight"], weights["predictors.category.map.bias"]
        guess = [float((row * pooled).sum()) + float(shift) for row, shift in zip(matrix, bias, strict=True)]
        scores = []
        for row in weights["targets.category.weight"].tolist():
            dot = sum(a * b for a, b in zip(guess, row, strict=True))
            scores.append(dot / (sum(a * a for a in guess) ** 0.5 * sum(b * b for b in row) ** 0.5) / 0.5)
        found.append(scores)
    return found


def test_scores_and_accuracies_are_those_of_a_slow_loop(run: Path) -> None:
    source = open_source("digits:test")
    samples = [source[number * len(source) // 30] for number in range(30)]
    slow = slow_scores(run, [sample.picture.decode() for sample in samples])
    model = load(str(run))
    assert model.categories is not None and model.categories.names == source.classes
    view = Resize(size=model.size)
    pixels = [view.resized(s.picture.decode(), view.plan(np.random.default_rng(0), 32, 32)) for s in samples]
    with torch.no_grad():
        scores = model.categories(model.tokens(torch.stack(pixels).float() / 255, "raw"))
    torch.testing.assert_close(scores, torch.tensor(slow).float(), atol=1e-5, rtol=1e-5)
    got = api.evaluate("classify", run, data="digits:test", limit=30)
    labels = [sample.label for sample in samples]
    right = [max(range(10), key=row.__getitem__) == label for row, label in zip(slow, labels, strict=True)]
    five = [label in sorted(range(10), key=row.__getitem__)[-5:] for row, label in zip(slow, labels, strict=True)]
    assert got["metrics"]["top1"] == pytest.approx(np.mean(right))
    assert got["metrics"]["top5"] == pytest.approx(np.mean(five))
    per_class = [np.mean([r for r, x in zip(right, labels, strict=True) if x == c]) for c in sorted(set(labels))]  # pyright: ignore[reportArgumentType]
    assert got["metrics"]["mean_per_class"] == pytest.approx(np.mean(per_class))
    assert (got["metrics"]["chance"], got["metrics"]["skipped"], got["samples"]) == (0.1, 0.0, 30)


def test_what_is_watched_is_what_the_finished_run_gives(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [line["classify"] for line in lines if "classify" in line]
    assert len(watched) == 2
    assert watched[-1] == api.evaluate("classify", run, data="digits:test", limit=40)["metrics"]["top1"]


def test_a_random_encoder_has_a_random_head(run: Path) -> None:
    got = api.evaluate("classify", run, data="digits:test", limit=20, baseline="random")
    assert got["model"].endswith("(random image encoder)") and 0 <= got["metrics"]["top1"] <= 1


def test_the_bundle_names_the_categories(run: Path) -> None:
    assert json.loads((run / "bundle" / "classes.json").read_text()) == list(open_source("digits").classes)
    model = load(str(run))
    side = model.bundle.category
    assert side == CategorySide(
        term="category", predictor=side.predictor, likelihood=Boltzmann(over="table", temperature=0.5, normalise="both")
    )
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in model.parts())


def test_other_classes_are_refused_with_both_lists(run: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        draw(tmp_path / "pets" / name / "a.png", 0)
    with pytest.raises(UserError, match=r"zero, one, two, three, \.\.\. \(10\), but .*pets has cat, dog"):
        api.evaluate("classify", run, data=str(tmp_path / "pets"))
    for number in range(4):
        draw(tmp_path / "bare" / f"{number}.png", number)
    with pytest.raises(UserError, match="bare has no labels; use class folders"):
        api.evaluate("classify", run, data=str(tmp_path / "bare"))
    with pytest.raises(UserError, match="--pool mean"):
        api.evaluate("classify", run, data="digits:test", pool="mean")


def test_a_run_that_could_not_be_watched_does_not_start(tmp_path: Path) -> None:
    draw(tmp_path / "pets" / "cat" / "a.png", 0)
    recipe = api.make_recipe("supervised_tiny", data="digits", val=str(tmp_path / "pets"), settings=LEAN | SHARP)
    with pytest.raises(UserError, match=r"has the classes zero, .*pets has cat \(1\)"):
        pretraining.start(recipe, tmp_path / "run", [], lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_run_without_categories_says_so(place: Path) -> None:
    with pytest.raises(UserError, match="has no category head of its own; use a run of a method that learns"):
        api.evaluate("classify", f"{place}/run", data="digits:test")


def test_the_tiny_recipe_watches_its_own_head() -> None:
    recipe = api.make_recipe("supervised_tiny")
    assert recipe.watch.tasks == ("classify",) and recipe.watch.every == 150
