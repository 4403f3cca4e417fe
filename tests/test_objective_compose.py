"""Sums of rows: what is shared and what is kept apart, and the same sum by name and by YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onestage import recipes
from onestage.methods import METHODS
from onestage.objective import add
from onestage.spec import UserError, to_yaml
from small import lean
from test_objective import answers_for, batch_for, objective_for


def test_a_sum_of_rows_is_the_sum_of_their_losses() -> None:
    """With the same weights and the same batch: eq. 4 of M3I, whose likelihood factorises over targets."""
    rows = {name: lean(METHODS[name]) for name in ("mim_pixel", "siamese_feature")}
    total = add([(1.0, rows["mim_pixel"]), (0.5, rows["siamese_feature"])])
    objective = objective_for(total).eval()
    whole = objective(batch_for(total), answers_for(total))
    assert set(whole.terms) == {"pixels", "features"}
    expected = whole.terms["pixels"] + 0.5 * whole.terms["features"]
    torch.testing.assert_close(whole.total, expected)
    for term, row in (("pixels", "mim_pixel"), ("features", "siamese_feature")):
        alone = objective_for(rows[row]).eval()
        own = {key: value for key, value in objective.state_dict().items() if key in alone.state_dict()}
        alone.load_state_dict(own, strict=False)
        batch = batch_for(total)
        views = {view: batch.views[name] for view, name in zip(("view1", "view2"), views_of(total, row), strict=False)}
        hidden = {"image/image": batch.hidden[f"{total.terms[term].x}/image"]}
        again = alone(batch._replace(views=views, hidden=hidden), {})
        torch.testing.assert_close(again.terms[term], whole.terms[term], msg=row)


def views_of(total: object, row: str) -> list[str]:
    """The names of a row's views in the sum."""
    prefix = "" if row == "mim_pixel" else f"{row}_"
    return [f"{prefix}view1" if row == "siamese_feature" else "view1", "view2"]


def test_what_rows_declare_alike_is_shared() -> None:
    total = add([(1.0, METHODS["mim_feature"]), (1.0, METHODS["mim_global"])])
    assert set(total.views) == {"view1"} and set(total.encoders) == {"student", "average"}
    assert set(total.inputs) == {"image"}, "the same view with the same hiding is encoded once"
    assert set(total.terms) == {"features", "image"}


def test_what_they_declare_differently_is_kept_apart() -> None:
    total = add([(1.0, METHODS["mae"]), (2.0, METHODS["mim_pixel"])])
    assert set(total.terms) == {"pixels", "mim_pixel_pixels"}
    assert total.terms["mim_pixel_pixels"].weight == 2.0
    assert set(total.views) == {"view1", "mim_pixel_view1"}


def test_a_row_twice_or_alone_is_refused() -> None:
    for rows in ([(1.0, METHODS["mae"])], [(1.0, METHODS["mae"])] * 2):
        with pytest.raises(UserError, match="two different rows"):
            add(rows)


def test_a_sum_by_name_and_by_a_few_lines_of_yaml(tmp_path: Path) -> None:
    by_name = recipes.recipe("uta+0.5*clip_tiny")
    assert by_name.method.terms["pair"].weight == 0.5 and by_name.name == "uta+0.5*clip_tiny"
    assert set(by_name.models) == {"student", "text"} and by_name.method.needs_texts
    file = tmp_path / "mine.yaml"
    file.write_text("base: uta+0.5*clip_tiny\nname: mine\nbatch: 32\nmodels:\n  student: {depth: 2}\n")
    mine = recipes.recipe(str(file))
    assert (mine.name, mine.batch) == ("mine", 32) and mine.method == by_name.method
    student = by_name.models["student"]
    assert student.kind == "vit" and mine.models["student"].kind == "vit"
    assert mine.models["student"].depth == 2 and mine.models["student"].width == student.width
    whole = tmp_path / "whole.yaml"
    whole.write_text(to_yaml(by_name))
    assert recipes.recipe(str(whole)) == by_name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: uta_tinny\n", "no recipe 'uta_tinny'"),
        ("base: 3\n", "expected the name of a recipe"),
        ("base: uta_tiny\nbacth: 3\n", "bacth"),
        ("base: half*uta+mae_tiny\n", "no recipe 'half"),
    ],
)
def test_a_base_that_does_not_fit_is_one_message(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        recipes.recipe(str(file))
