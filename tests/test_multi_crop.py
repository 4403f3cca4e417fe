"""Multi-crop: images of another size, groups of small crops, the pairs of views, and DINO and iBOT as a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor

from full_width import steps
from onestage.encoders import Vit
from onestage.likelihood import Centred
from onestage.methods import METHODS
from onestage.methods.multi_crop import dino
from onestage.objective import Ema, momentum, term_rows
from onestage.objective.crops import fewer
from onestage.objective.encode import encode
from onestage.pretraining import Recipe
from onestage.pretraining.resolve import resolve
from onestage.recipes import recipe
from onestage.recipes.describe import encoder_rows
from onestage.recipes.multi_crop import MULTI_CROP_ROWS
from onestage.spec import UserError
from onestage.types import Geometry, Piece, Target, View
from onestage.views import Crop
from small import lean
from test_objective import batch_for, objective_for

TINY = Vit(arch="vit_tiny_patch16_224", size=48, patch=8, width=32, depth=2, heads=2, normalise="none")


def view_of(side: int) -> View:
    geometry = Geometry(torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool))
    return View(torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(side)), geometry)


@torch.no_grad()
@pytest.mark.parametrize("side", [24, 40, 64])
def test_images_of_another_size_are_encoded_as_timm_does(side: int) -> None:
    encoder = TINY.build(frozenset({"drop"})).eval()
    other = timm.create_model(
        "vit_tiny_patch16_224", img_size=48, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0,
        dynamic_img_size=True,
    )  # fmt: skip
    other.load_state_dict(encoder.backbone.state_dict())
    view = view_of(side)
    found, expected = encoder({"image": Piece(view)}), other.eval().forward_features(view.pixels)
    torch.testing.assert_close(found.rows, expected[:, 1:])
    torch.testing.assert_close(found.pooled, expected[:, 0])
    assert found.grid == (side // 8, side // 8) and found.place.cell.shape == (3, (side // 8) ** 2)
    own = encoder({"image": Piece(view_of(48))})
    torch.testing.assert_close(own.rows, other.forward_features(view_of(48).pixels)[:, 1:])


def test_a_size_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(UserError, match="filled by patches of 8"):
        TINY.build(frozenset())({"image": Piece(view_of(44))})
    relative = dataclasses.replace(TINY, positions="relative").build(frozenset())
    with pytest.raises(UserError, match="learned or sincos"):
        relative({"image": Piece(view_of(24))})


def test_small_crops_are_encoded_together_and_none_else() -> None:
    method = lean(METHODS["dino"])
    objective, batch, sizes = objective_for(method).eval(), batch_for(method), []
    encoder = objective.encoder("student")
    encoder.register_forward_hook(lambda module, args, tokens: sizes.append(tuple(tokens.rows.shape[:2])))
    together = encode(method, objective.encoder, batch)
    assert sorted(sizes) == [(4, 36), (4, 36), (8, 9)]
    for name in ("local1", "local2", "two"):
        view = batch.views["view2" if name == "two" else name]
        alone = encoder({"image": Piece(view)})
        torch.testing.assert_close(together[name].pooled, alone.pooled)
        torch.testing.assert_close(together[name].rows, alone.rows)
        assert together[name].geometry is view.geometry


def test_every_view_explains_each_global_one_but_itself() -> None:
    terms = METHODS["dino"].terms
    assert len(terms) == 18 and sum(term.weight for term in terms.values()) == pytest.approx(1)
    assert {name for name in terms if name.startswith(("one", "two"))} == {"one_view2", "two_view1"}
    assert [name for name, term in terms.items() if term.shares is None] == ["one_view2"]
    few = fewer(METHODS["ibot"], 2)
    assert sorted(few.views) == ["local1", "local2", "view1", "view2"] and len(few.inputs) == 4
    codes = [term.weight for name, term in few.terms.items() if not name.startswith("patch")]
    assert codes == pytest.approx([1 / 6] * 6) and few.terms["patch1"].weight == 0.25


def test_the_table_has_one_line_for_a_group() -> None:
    rows = {row[1]: (row[2], row[-1]) for row in term_rows(METHODS["dino"])}
    assert rows == {
        "one_view2": ("view1", "0.05556"),
        "two_view1": ("view2", "0.05556"),
        "local_view1": ("local", "8 x 0.05556"),
        "local_view2": ("local", "8 x 0.05556"),
    }


def test_the_flops_of_a_sample_are_those_of_all_its_views() -> None:
    """Ten crops of 36 cells cost about what two of 196 do, and less for their attention."""
    made = resolve(recipe("dino_s16"), {})
    (row,) = encoder_rows(made)
    (alone,) = encoder_rows(dataclasses.replace(made, method=fewer(made.method, 0)))
    assert 1.7 < float(row[3]) / float(alone[3]) < 2.1


def cost(guess: Tensor, target: Tensor) -> float:
    """The mean over samples and rows of the cross-entropy of soft choices, for a centre of 0 and a cold target."""
    chosen, logits = (target / 0.04).softmax(dim=-1), guess / 0.1
    return float((chosen * (logits.logsumexp(dim=-1, keepdim=True) - logits)).sum(dim=-1).mean())


def test_dino_is_the_mean_over_pairs_and_has_one_centre() -> None:
    method = lean(METHODS["dino"])
    objective, batch = objective_for(method), batch_for(method)
    objective.training_mode()
    seen = {
        view: objective.projectors.trained["head"](objective.encoder("student")({"image": Piece(batch.views[view])}))
        for view in method.views
    }
    shown = {
        view: objective.projectors.averaged["average_head"](
            objective.encoder("average")({"image": Piece(batch.views[view])})
        ).pooled
        for view in ("view1", "view2")
    }
    pairs = [(x, y) for x in seen for y in shown if x != y]
    slow = sum(cost(seen[x].pooled.detach().double(), shown[y].double()) for x, y in pairs) / len(pairs)
    assert len(pairs) == 6 and objective(batch, {}).total.item() == pytest.approx(slow, rel=1e-5)
    assert list(objective.likelihoods) == ["one_view2"]
    objective.after_step(0, 10)
    keys = torch.cat([shown[y] for _, y in pairs])
    centre = objective.likelihood("local1_view1").get_buffer("centre")
    torch.testing.assert_close(centre, 0.1 * keys.mean(dim=0), rtol=1e-4, atol=1e-6)


def test_ibot_explains_hidden_patches_of_the_same_view_and_the_class_of_the_other() -> None:
    method = lean(METHODS["ibot"])
    objective, batch = objective_for(method), batch_for(method)
    objective.training_mode()
    represented = objective.represent(batch, {})
    total = 0.0
    for name, term in method.terms.items():
        guess, target = represented.guesses[name].detach().double(), represented.targets[name].rows.double()
        if term.target.rows != "hidden":
            assert guess.shape[1] == target.shape[1] == 1
            total += term.weight * cost(guess, target)
            continue
        counts = batch.hidden[f"{term.x}/image"].sum(dim=1).tolist()
        assert guess.shape[1] == target.shape[1] == 18 and 0 in counts and max(counts) > 0
        each = [cost(guess[i, None, :n], target[i, None, :n]) for i, n in enumerate(counts) if n]
        total += term.weight * sum(each) / len(each)
    assert objective.score(represented).total.item() == pytest.approx(total, rel=1e-5)
    assert sorted(objective.likelihoods) == ["one_view2", "patch1"], "a centre of the class token, and one of patches"
    assert list(objective.projectors.trained) == ["head"]


def test_the_targets_temperature_warms_up_with_the_run() -> None:
    wanted = Centred(target_temperature=0.07, target_start=0.04, target_warmup=0.5)
    likelihood, guess, rows = wanted.build(6), torch.randn(4, 1, 6), torch.randn(4, 1, 6)
    for share, expected in ((0.0, 0.04), (0.25, 0.055), (0.5, 0.07), (1.0, 0.07)):
        likelihood.advance(share)
        plain = Centred(target_temperature=expected).build(6)
        torch.testing.assert_close(likelihood(guess, Target(rows, None, None)), plain(guess, Target(rows, None, None)))
    again = wanted.build(6)
    again.load_state_dict(likelihood.state_dict())
    assert float(again.target_temperature()) == pytest.approx(0.07)
    with pytest.raises(ValueError, match="go together"):
        Centred(target_warmup=0.5)


def test_a_run_advances_the_temperature() -> None:
    objective = objective_for(lean(METHODS["dino"]))
    objective.after_step(14, 100)
    warm = float(objective.likelihood("one_view2").target_temperature())
    assert warm == pytest.approx(0.04 + 0.03 * 0.15 / 0.3)


def test_an_average_may_follow_a_line_that_it_does_not_finish() -> None:
    role = Ema(of="student", momentum=0.996, path="line", over=1.25)
    assert [momentum(role, step, 100) for step in (0, 50, 100)] == pytest.approx([0.996, 0.9976, 0.9992])
    cosine = Ema(of="student", momentum=0.9, over=2.0)
    assert momentum(cosine, 100, 100) == pytest.approx(1 - 0.1 * (math.cos(math.pi / 2) + 1) / 2)


def test_a_view_of_its_own_size_is_small_whole_and_read_by_its_pooled_row() -> None:
    tiny = recipe("dino_tiny")
    resolved = resolve(tiny, {}).method.views
    assert {name: view.size for name, view in resolved.items()} == {
        "view1": 48,
        "view2": 48,
        "local1": 24,
        "local2": 24,
    }
    for view, size in (("local1", 20), ("local1", 96)):
        views = tiny.method.views | {view: Crop(size=size)}
        wrong = dataclasses.replace(tiny, method=dataclasses.replace(tiny.method, views=views))
        with pytest.raises(
            UserError, match=rf"method.views.{view}.size: {size} pixels, but 'student' sees images of 48"
        ):
            resolve(wrong, {})
    ibot = recipe("ibot_tiny")
    views = ibot.method.views | {"view1": Crop(size=24)}
    with pytest.raises(UserError, match="seen whole"):
        resolve(dataclasses.replace(ibot, method=dataclasses.replace(ibot.method, views=views)), {})


def test_small_runs_keep_targets_sharp_and_learn_slowly() -> None:
    for name in ("dino", "ibot"):
        tiny = recipe(f"{name}_tiny")
        likelihoods = [term.likelihood for term in tiny.method.terms.values()]
        assert {(one.target_temperature, one.target_start) for one in likelihoods if isinstance(one, Centred)} == {
            (0.04, None)
        }
        assert tiny.optimiser.groups["image"].lr == 5e-4


@pytest.mark.parametrize("row", MULTI_CROP_ROWS)
def test_two_steps_at_full_width(row: Callable[[], Recipe]) -> None:
    """Codes stay as they were drawn in the first epoch; everything else moves. Two local crops stand for ten."""
    made = row()
    few = dataclasses.replace(made, method=fewer(made.method, 2))
    done, still = steps(few)
    assert still == ([] if made.method.name == "msn" else ["projectors.trained.head.last"]) and len(done) == 2


def test_the_numbers_of_the_paper() -> None:
    made = recipe("ibot_b16")
    body = made.optimiser.groups["all"]
    assert (body.weight_decay, body.last_weight_decay, body.clip, body.clip_by) == (0.04, 0.4, 0.3, "tensor")
    assert body.lr == pytest.approx(7.5e-4 * 1024 / 256) and made.optimiser.reference_batch == made.batch == 1024
    assert len(made.method.views) == 12 and made.method.views["local10"].size == 96
    assert len(dino(8, 0.4).terms) == 18
