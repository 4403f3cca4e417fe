"""The validation loss: what it is, that looking leaves no trace, and how many image-text pairs were seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage import pretraining
from onestage.engine.metrics import read_metrics
from onestage.objective import Ask, Method, Objective, hiding
from onestage.pretraining import Recipe, Watch, prepare
from onestage.pretraining.validation import validation_loss
from onestage.recipes import recipe as named
from onestage.report import write_report
from onestage.storage import load_checkpoint
from onestage.types import Batch, Tokens
from onestage.views import BlockReversed, Random
from small import BATCH, small
from stepping import brief_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return brief_teacher(tmp_path_factory.mktemp("teacher"))


def uta(teacher: str, **changes: object) -> Recipe:
    watch = Watch(every=2, tasks=(), samples=2 * BATCH, hide=Random(ratio=0.5))
    made = small("uta", val="digits:test", teachers={"teacher": teacher}, steps=4, watch=watch)
    return dataclasses.replace(made, **changes)


def test_the_loss_of_uta_under_random_halves(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minus the mean cosine over the kept half and the class token, over the batches that were looked at."""
    prepared = prepare(uta(teacher), None)
    seen: list[tuple[Batch, Tokens, Tensor]] = []
    represent = Objective.represent

    def spied(self: Objective, batch: Batch, answers: dict[Ask, Tokens]):
        made = represent(self, batch, answers)
        (answer,) = answers.values()
        seen.append((batch, answer, made.guesses["align"]))
        return made

    monkeypatch.setattr(Objective, "represent", spied)
    own = prepared.objective.method
    found = validation_loss(prepared)
    assert prepared.objective.method is own and prepared.objective.training
    assert len(seen) == 2 and set(found) == {"val/loss"}
    cosines = []
    for batch, answer, guess in seen:
        (hidden,) = batch.hidden.values()
        assert (hidden.sum(dim=1) == hidden.shape[1] // 2).all(), "half of the cells, where training hides 0.4"
        for sample in range(BATCH):
            kept = [cell for cell in range(hidden.shape[1]) if not hidden[sample, cell]]
            rows = [answer.pooled[sample], *(answer.rows[sample, cell] for cell in kept)]
            cosines += [
                float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))
                for one, other in zip(rows, guess[sample], strict=True)
            ]
    assert found["val/loss"] == pytest.approx(-sum(cosines) / len(cosines), abs=1e-5)
    assert validation_loss(prepared) == found, "the same samples, views and cells every time"


def test_looking_leaves_no_trace(teacher: str, tmp_path: Path) -> None:
    drop = {"drop_path": 0.3}
    for name, every in (("with", 1), ("without", 0)):
        made = uta(teacher, watch=Watch(every=every, tasks=(), samples=BATCH))
        model = dataclasses.replace(made.models["student"], **drop)
        pretraining.start(dataclasses.replace(made, models={"student": model}), tmp_path / name, [], lambda line: None)
    looked, blind = (load_checkpoint(tmp_path / name, None).tensors for name in ("with", "without"))
    assert all(looked[part][key].equal(blind[part][key]) for part in looked for key in looked[part])
    best = load_checkpoint(tmp_path / "with", None).meta
    losses = {r["step"]: r["val/loss"] for r in read_metrics(tmp_path / "with" / "metrics.jsonl") if "val/loss" in r}
    assert list(losses) == [1, 2, 3, 4]
    assert best["best_step"] == min(losses, key=lambda step: losses[step]), "the lowest loss is the best"


def test_a_run_says_what_it_saw(teacher: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    pretraining.start(uta(teacher), tmp_path / "uta", [], said.append)
    assert said[-1] == f"seen: {4 * BATCH} images, 0 image-text pairs"
    assert "val/loss" in capfd.readouterr().err
    pretraining.start(small("clip", val="scenes:test", data="scenes", steps=3), tmp_path / "clip", [], said.append)
    assert said[-1] == f"seen: {3 * BATCH} images, {3 * BATCH} image-text pairs"
    pretraining.resume(tmp_path / "clip", said.append)
    assert "finished" in said[-1]
    page = write_report([tmp_path / "uta", tmp_path / "clip"], tmp_path / "report.html").read_text()
    assert "image-text pairs" in page and "uta, validation" in page


def test_losses_of_several_terms_and_over_the_batch(tmp_path: Path) -> None:
    watch = Watch(every=2, tasks=(), samples=BATCH)
    prepared = prepare(small("m3i", val="digits:test", watch=watch, vit={"pool": "mean"}), None)
    found = validation_loss(prepared)
    names = {f"val/loss/{name}" for name in prepared.recipe.method.terms}
    assert set(found) == names | {"val/loss"} and all(value == value for value in found.values())
    weights = {name: term.weight for name, term in prepared.recipe.method.terms.items()}
    total = sum(weights[name] * found[f"val/loss/{name}"] for name in weights)
    assert found["val/loss"] == pytest.approx(total, rel=1e-5)
    clip = prepare(small("clip", data="scenes", val="scenes:test", watch=watch), None)
    assert 0 < validation_loss(clip)["val/loss"] < 10


def test_data_that_lack_texts_are_said_to(tmp_path: Path) -> None:
    (tmp_path / "val" / "cat").mkdir(parents=True)
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / "val" / "cat" / f"{number}.png")
    said: list[str] = []
    watch = Watch(every=1, tasks=(), samples=4)
    made = small("clip", data="scenes", val=str(tmp_path / "val"), steps=1, watch=watch)
    pretraining.start(made, tmp_path / "run", [], said.append)
    assert any("no validation loss" in line and "has no texts" in line for line in said)


def test_recipes_of_uta_look_under_random_halves() -> None:
    for name in ("uta_tiny", "uta_b14", "uta_l14", "uta_g14"):
        watch = named(name).watch
        assert watch.every > 0 and watch.hide == Random(ratio=0.5)
    assert named("mae_tiny").watch.hide is None and named("mae_tiny").watch.tasks == ()


def test_another_way_of_hiding() -> None:
    method: Method = named("uta_tiny").method
    changed = hiding(method, BlockReversed(ratio=0.75))
    (asked,) = changed.inputs.values()
    assert asked.parts["image"].hide == BlockReversed(ratio=0.75) and changed.terms == method.terms
