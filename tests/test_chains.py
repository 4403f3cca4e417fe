"""Chains of recipes: what a stage takes from the one before, going on, probes, and mistakes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from onestage import api
from onestage.api_given import make_chain
from onestage.bench import bench
from onestage.cli import command
from onestage.evaluation import DenseProbe, probes
from onestage.pretraining import Chain, Progressed, chain, finished, read_run
from onestage.recipes import chains
from onestage.report.chains import chain_figures
from onestage.report.directory import RunData
from onestage.spec import Stopped, UserError, from_plain, read_yaml, to_plain, to_yaml
from onestage.storage import load_checkpoint
from typed import Capture, draw

SMALL = {"batch": 8, "workers": 0, "precision": "fp32", "probed": 40, "models.student.width": 32}
NAMES = chains.names()


def tried(out: Path, steps: int = 2) -> Path:
    api.pretrain("chain_swinv2_g_tiny", out=out, data="digits", steps=steps, settings=SMALL)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_is_declared_whole(name: str) -> None:
    made = chains.chain(name)
    assert "arXiv:" in made.cite and made.stages[0].takes == () and all(stage.takes for stage in made.stages[1:])
    assert sum(stage.recipe.steps or 0 for stage in made.stages) == 900
    assert from_plain(Chain, to_plain(made)) == made
    students = [stage.recipe.models["student"] for stage in made.stages]
    sizes = {(one.size, one.patch, one.width, one.depth, one.heads, one.normalise) for one in students}
    assert len(sizes) == 1, "weights of a stage fit the next"
    assert chains.chain(f"{name}:smoke").stages[0].recipe.steps == 120 // len(made.stages)


def test_steps_are_shared_by_share_and_each_stage_has_one() -> None:
    made = chains.chain("chain_beit3_tiny")
    plain = to_plain(made)
    for stage, share in zip(plain["stages"], (1.0, 2.0, 1.0), strict=True):
        stage["share"] = share
    shared = from_plain(Chain, plain)
    assert [stage.recipe.steps for stage in shared.lasting(100).stages] == [25, 50, 25]
    assert [stage.recipe.steps for stage in shared.lasting(1).stages] == [1, 1, 1]


def test_a_stage_starts_from_the_weights_of_the_one_before(tmp_path: Path) -> None:
    out = tried(tmp_path / "out")
    assert read_run(out / "2_classes").init == str(out / "1_pixels")
    before = load_checkpoint(out / "1_pixels", None).tensors["model"]
    first = load_checkpoint(out / "2_classes", "0").tensors["model"]
    taken = [name for name in first if name.startswith("encoders.student.")]
    assert taken and all(torch.equal(first[name], before[name]) for name in taken)
    pixels, classes = finished(out)
    assert (pixels.steps, classes.steps, classes.samples, classes.takes) == (1, 1, 8, ["weights"])
    for stage in (pixels, classes):
        assert stage.probes is not None and 0 <= stage.probes["linear"] <= 1 and stage.probes["dense"] is None
    _goes_on(out)
    _is_reported(out)


def _goes_on(out: Path) -> None:
    """Finished stages are left as they are; a stage that was not begun is run."""
    told = json.loads((out / "chain.json").read_text())
    told["stages"].pop()
    (out / "chain.json").write_text(json.dumps(told))
    stamps = [(run / "metrics.jsonl").stat().st_mtime_ns for run in (out / "1_pixels", out / "2_classes")]
    api.resume(out)
    assert [stage.stage for stage in finished(out)] == ["pixels", "classes"]
    assert stamps == [(run / "metrics.jsonl").stat().st_mtime_ns for run in (out / "1_pixels", out / "2_classes")]
    with pytest.raises(UserError, match="another --out"):
        tried(out)


def _is_reported(out: Path) -> None:
    page = api.report([out]).read_text()
    assert page == (out / "report.html").read_text()
    assert "Probes after each stage" in page and "1 pixels (8 samples), 2 classes (8 samples)" in page


def test_an_interrupted_stage_says_how_the_chain_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", chain.start

    def start(recipe, run, *rest):
        if run.name == "2_classes":
            raise Stopped("stopped at step 1 of 2")
        return real(recipe, run, *rest)

    monkeypatch.setattr(chain, "start", start)
    with pytest.raises(Stopped, match=rf"stopped in stage classes.*--resume {out}$"):
        tried(out)
    assert [stage.stage for stage in finished(out)] == ["pixels"]
    monkeypatch.undo()
    with pytest.raises(UserError, match="is a chain"):
        api.resume(out, data="digits")
    api.resume(out, settings={"workers": "0"})
    assert [stage.stage for stage in finished(out)] == ["pixels", "classes"]
    assert read_run(out / "2_classes").workers == 0


def test_a_stage_takes_the_one_before_as_its_teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = make_chain("chain_beit3_tiny", data="scenes", steps=3, settings={"distilled.batch": 16, "probed": 0})
    assert [stage.recipe.batch for stage in made.stages] == [64, 16, 64] and made.probed == 0
    assert [stage.recipe.method.name for stage in made.stages] == ["clip", "vqkd", "beit3"]
    asked = []

    def start(recipe, run, *rest):
        asked.append(recipe)
        return Progressed(step=1, seconds=1.0)

    monkeypatch.setattr(chain, "start", start)
    found = chain.start_chain(made, tmp_path / "out", [], lambda line: None)
    assert [one.teachers for one in asked] == [
        {},
        {"teacher": str(tmp_path / "out" / "1_clip")},
        {"teacher": str(tmp_path / "out" / "2_distilled")},
    ]
    assert [one.init for one in asked] == [None, None, str(tmp_path / "out" / "2_distilled")] and [
        stage.probes for stage in found
    ] == [None] * 3


def test_a_chain_ends_in_images_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLIP, a tokenizer of it, and masked data modelling from its codes and its weights, each stage probed."""
    monkeypatch.setattr(probes, "DenseProbe", partial(DenseProbe, steps=2))
    out = tmp_path / "out"
    api.pretrain("chain_beit3_tiny", out=out, data="scenes", steps=3, settings=SMALL | {"probed": 24})
    tower = load_checkpoint(out / "2_distilled", None).tensors["model"]
    begun = load_checkpoint(out / "3_masked", "0").tensors["model"]
    for name in ("norm.weight", "patch_embed.proj.weight", "cls_token"):
        assert torch.equal(begun[f"encoders.student.{name}"], tower[f"encoders.student.backbone.{name}"])
    assert all(stage.probes is not None and 0 <= stage.probes["dense"] <= 1 for stage in finished(out))


def test_a_chain_of_ones_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    stages = [{"name": "a", "recipe": "mae_tiny"}, {"name": "b", "recipe": "supervised_tiny", "takes": ["weights"]}]
    file.write_text(to_yaml({"name": "mine", "cite": "-", "stages": stages}))
    assert [stage.recipe.method.name for stage in make_chain(str(file)).stages] == ["mae", "supervised"]
    assert api.cp("chain_swinv2_g_tiny", tmp_path / "copy.yaml").is_file()
    copied = chains.chain(str(tmp_path / "copy.yaml"))
    assert copied == chains.chain("chain_swinv2_g_tiny") and isinstance(read_yaml(tmp_path / "copy.yaml"), dict)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("chain_beit_tiny --data digits", ["chain_beit_tiny", "did you mean 'chain_beit3_tiny'"]),
        ("chain_swinv2_g --data digits", ["did you mean 'chain_swinv2_g_tiny'", "ls chains"]),
        ("chain_beit3_tiny --data AT", ["learns from captions"]),
        ("chain_beit3_tiny", ["no data"]),
        ("chain_beit3_tiny --data scenes --teacher runs/x", ["--teacher", "from one another"]),
        ("chain_beit3_tiny --data scenes --seeds 0,1", ["--seeds", "bench table --rows m3i,chain_beit3"]),
        ("chain_beit3_tiny --data scenes --clip.bach 3", ["bach", "'batch'"]),
    ],
)
def test_mistakes_are_one_message(words: str, told: list[str], tmp_path: Path, capsys: Capture) -> None:
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        draw(tmp_path / "pets" / name / "a.png", number)
    words = words.replace("AT", str(tmp_path / "pets"))
    assert command(["pretrain", *words.split(), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in told) and "Traceback" not in said
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_taken_is_refused() -> None:
    plain = to_plain(chains.chain("chain_swinv2_g_tiny"))
    for number, change, told in (
        (0, {"takes": ["weights"]}, "nothing to take"),
        (1, {"takes": ["teacher"]}, "learns from 0 of them"),
        (1, {"name": "pixels"}, "one name"),
        (1, {"name": "../x"}, "stages.1.name"),
    ):
        stages = [stage | (change if place == number else {}) for place, stage in enumerate(plain["stages"])]
        with pytest.raises(UserError, match=told):
            from_plain(Chain, plain | {"stages": stages})


def test_the_figure_has_the_single_stage_beside_the_chain() -> None:
    stages = [
        {"stage": "a", "samples": 8, "probes": {"linear": 0.5, "knn": 0.4, "dense": None, "zero_shot": None}},
        {"stage": "b", "samples": 8, "probes": {"linear": 0.3, "knn": 0.5, "dense": None, "zero_shot": None}},
    ]
    single = RunData(name="m3i", recipe={}, evaluations=[{"task": "linear", "metrics": {"top1": 0.6}}])
    (figure,) = chain_figures({"mine": stages}, [single, RunData(name="bare", recipe={})])
    assert all(word in figure["svg"] for word in ("linear probe", "kNN", "m3i", "mine"))
    assert "dense" not in figure["svg"] and "bare: not evaluated" in figure["note"]
    assert chain_figures({}, [single]) == []


def test_the_bench_of_the_table_takes_chains(tmp_path: Path) -> None:
    options = {"data": "digits", "rows": "chain_swinv2_g", "steps": 2, "probed": 40, "out": str(tmp_path)}
    lines = list(bench("table", options))
    rows = ["supervised", "random", "chain_swinv2_g/1_pixels", "chain_swinv2_g"]
    assert [line["row"] for line in lines] == rows * 2
    assert lines[3]["seconds"] >= lines[2]["seconds"] > 0 and lines[3]["peak_mib"] > 100
    assert list(bench("table", options)) == lines
    with pytest.raises(UserError, match="is a chain of rows"):
        list(bench("table", options | {"vary": "batch=8|16"}))
