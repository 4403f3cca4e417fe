"""The bench of the table: fixed budgets, results that stay, and what a summary says."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from onestage.bench import bench, table
from onestage.bench.summary import spread, written
from onestage.bench.trained import Cost
from onestage.bench.variants import Variant, fixed, needs_categories, needs_codes, needs_teacher, shared, variants
from onestage.data import open_source
from onestage.encoders import Vit
from onestage.evaluation import Knn, Linear, probes
from onestage.methods import METHODS
from onestage.pretraining import Recipe
from onestage.spec import UserError
from onestage.teachers import load
from typed import draw


def test_every_row_has_the_same_backbone_and_length() -> None:
    found = set()
    for row in METHODS:
        recipe = fixed(Variant(row), 50, 3, "scenes", None)
        assert (recipe.steps, recipe.seed, recipe.method.name) == (50, 3, row)
        found |= {
            (model.width, model.depth, model.heads, model.stem)
            for model in recipe.models.values()
            if isinstance(model, Vit)
        }
    assert len(found) == 1


def test_a_table_is_made_once_and_goes_on(tmp_path: Path) -> None:
    options = {"data": "digits", "rows": "mae", "seeds": "0", "steps": 2, "probed": 60, "out": str(tmp_path / "t")}
    lines = list(bench("table", options))
    assert [line["row"] for line in lines] == ["supervised", "random", "mae"] * 2
    for line in lines[:3]:
        assert 0 <= line["linear"] <= 1 and 0 <= line["knn"] <= 1 and line["dense"] is None
    assert lines[0]["peak_mib"] > 100 and lines[0]["seconds"] > 0
    table = (tmp_path / "t" / "table.md").read_text()
    assert all(f"| {row} | " in table for row in ("supervised", "random", "mae"))
    again = (tmp_path / "t" / "mae").stat().st_mtime_ns
    (tmp_path / "t" / "random@0.json").unlink()  # as if the bench had been killed before it
    assert list(bench("table", options)) == lines
    assert (tmp_path / "t" / "mae").stat().st_mtime_ns == again, "a row that was there was trained again"
    with pytest.raises(UserError, match="other settings"):
        list(bench("table", options | {"probed": 50}))
    _features_are_the_evaluations_own(tmp_path / "t" / "supervised" / "seed_0")


def _features_are_the_evaluations_own(run: Path) -> None:
    """One pass for both poolings gives what the evaluations give by themselves."""
    model, train, test = load(str(run)), open_source("digits"), open_source("digits:test")
    found = probes.probe(model, train, test, 60)
    assert found.linear == Linear(limit=60, pool=found.pool).run(model, test, train)["top1"]
    assert found.knn == Knn(limit=60, pool=found.pool).run(model, test, train)["top1"]


def test_what_rows_learn_from_is_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLIP teacher, from it the code book, and a classifier; each once, and told with its cost."""
    made: list[Recipe] = []

    def train(recipe: Recipe, run: Path, file: Path) -> Cost:
        made.append(recipe)
        return Cost(7.0, 8.0)

    monkeypatch.setattr(table, "trained", train)
    out = tmp_path / "t"
    out.mkdir()
    lines = bench("table", {"rows": "beit,deit_distilled,mae", "out": str(out)})
    assert next(lines) == {"case": "table", "teacher": str(out / "teacher"), "seconds": 7.0}
    assert next(lines) == {"case": "table", "codes": str(out / "codes"), "seconds": 7.0}
    assert next(lines) == {"case": "table", "categories": str(out / "categories"), "seconds": 7.0}
    assert [recipe.name for recipe in made] == ["clip_tiny", "vqkd_tiny", "supervised_tiny"]
    assert made[1].teachers == {"teacher": str(out / "teacher")}


def test_rows_of_categories_have_a_classifier_as_their_teacher() -> None:
    made = fixed(Variant("deit_distilled"), 5, 0, "scenes", "t", codes="c", categories="k")
    assert made.teachers == {"teacher": "k"}
    assert [row for row in METHODS if needs_categories(row)] == ["deit_distilled"]
    assert not needs_teacher("deit_distilled") and not needs_codes("deit_distilled")


def test_rows_of_codes_have_the_code_book_as_their_teacher() -> None:
    for row in METHODS:
        made = fixed(Variant(row), 5, 0, "scenes", "t", codes="c", categories="t")
        coded = {name for name, given in made.teachers.items() if given == "c"}
        assert bool(coded) == METHODS[row].needs_codes == needs_codes(row)
        assert set(made.teachers.values()) <= {"t", "c"}
    assert {"beit", "peco"} <= {row for row in METHODS if needs_codes(row) and not needs_teacher(row)}


def test_the_table_tells_what_was_trained_first() -> None:
    lines = [{"row": "random", "seed": 0, "linear": 0.1, "knn": 0.1, "dense": None, "zero_shot": None}]
    means = spread([line | {"seconds": 1.0, "peak_mib": None} for line in lines])
    text = written(means, [{"case": "table", "codes": "runs/t/codes", "seconds": 61.2}])
    assert text.endswith("Trained first, and in no row's own seconds: codes runs/t/codes (61 s).\n")
    assert "Trained first" not in written(means)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "supervised" / "seed_0").mkdir(parents=True)
    (tmp_path / "supervised" / "seed_0" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="holds something else already"):
        list(bench("table", {"data": "digits", "rows": "mae", "steps": 1, "probed": 60, "out": str(tmp_path)}))


def test_mistakes_are_named(tmp_path: Path) -> None:
    out = {"out": str(tmp_path / "t")}
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        draw(tmp_path / name / "a.png", number)
    plain = {"data": str(tmp_path), "val": str(tmp_path)}
    for options, said in (
        ({"rows": "maee"}, "did you mean 'mae'"),
        (plain | {"rows": "clip"}, "learns from captions"),
        (plain | {"rows": "uta"}, "from a teacher that needs them"),
        ({"data": str(tmp_path), "rows": "mae"}, "give --val"),
        ({"seeds": "0,0"}, "different"),
        ({"vary": "method"}, "is not PATH=VALUE"),
        ({"set": "models"}, "is not PATH=VALUE"),
        ({"set": "batch=2|batch=3"}, "batch twice"),
    ):
        with pytest.raises(UserError, match=said):
            list(bench("table", options | out))
    assert not (tmp_path / "t").exists()


def test_means_and_deviations_over_seeds() -> None:
    values = {"random": (0.1, 0.2, 0.15), "mae": (0.5, 0.7, 0.6)}
    lines = [
        {
            "row": row,
            "seed": seed,
            "linear": value,
            "knn": value,
            "dense": None,
            "zero_shot": None,
            "seconds": 2.0,
            "peak_mib": None,
        }
        for row, found in values.items()
        for seed, value in enumerate(found)
    ]
    random, mae = spread(lines)
    assert mae["linear"] == pytest.approx([0.6, statistics.stdev(values["mae"])])
    assert mae["dense"] is None and mae["peak_mib"] is None and mae["seconds"] == 2.0
    assert mae["above_random"] == {"linear": 4.5, "knn": 4.5, "dense": None, "zero_shot": None}
    assert random["above_random"]["linear"] == 0.0
    assert json.loads(json.dumps(mae))["linear"] == list(mae["linear"])
    assert "| mae | 0.600 (0.100) | 0.600 (0.100) | - | - | 2 | - |" in written([random, mae])


def test_a_setting_may_be_varied() -> None:
    path = "method.inputs.kept.parts.image.hide"
    found = variants(["uta"], f"{path}.ratio=0.4|0.5")
    assert [one.name for one in found] == ["uta ratio=0.4", "uta ratio=0.5"]
    hides = [fixed(one, 5, 0, "scenes", "t").method.inputs["kept"].parts["image"].hide for one in found]
    assert [hide.ratio for hide in hides] == [0.4, 0.5]
    (kind,) = variants(["uta"], f"{path}={{kind: random, ratio: 0.4}}")
    assert fixed(kind, 5, 0, "scenes", "t").method.inputs["kept"].parts["image"].hide.kind == "random"
    assert "/" not in kind.folder and " " not in kind.folder
    with pytest.raises(UserError, match="ratio"):
        fixed(Variant("uta", f"{path}.ration", "0.4"), 5, 0, "scenes", "t")


def test_settings_that_all_rows_have() -> None:
    settings = shared("models.student.patch=4 | models.student.size=32")
    for row in ("supervised", "mae", "uta"):
        made = fixed(Variant(row, "models.student.width", "64"), 5, 0, "scenes", "t", settings).models["student"]
        assert isinstance(made, Vit) and (made.patch, made.size, made.width) == (4, 32, 64)
    assert shared(None) == {}
