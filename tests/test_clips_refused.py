"""Clips that an encoder, a view or a term cannot use are refused, saying what to set."""

from __future__ import annotations

import dataclasses

import pytest

from onestage.methods import METHODS
from onestage.methods.masked import MAE
from onestage.predictors import Decoder
from onestage.pretraining.resolve import check_clips
from onestage.spec import UserError, replace_leaf
from onestage.targets import Hog
from onestage.views import Blend, Crop, Frames
from test_clips import FRAMES, STUDENT, clip_method


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 3}, "frames: 3 are not filled by tubelets of 2"),
        ({"stem": "conv"}, "clips need stem: patch"),
        ({"positions": "relative"}, "clips need stem: patch"),
    ],
)
def test_encoders_that_cannot_see_clips_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STUDENT, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "cls"}, "pool: cls reads a class token"),
        ({"arch": "eva02_tiny_patch14_224", "class_tokens": 1}, "frames: 4 is for vit_"),
    ],
)
def test_architectures_that_cannot_see_clips_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(STUDENT, **changes).build(frozenset())


def test_numbers_of_frames_must_agree() -> None:
    method = clip_method()
    check_clips(method, {"student": STUDENT})
    with pytest.raises(
        UserError,
        match=r"frames: 4 of a clip, but 'student' is made for 1; set models.student.frames: 4 .*view1.frames: null",
    ):
        check_clips(method, {"student": dataclasses.replace(STUDENT, frames=1, tubelet=1)})
    with pytest.raises(
        UserError, match=r"frames: 1 of a clip, but 'student' is made for 4; .*view1.frames: {count: 4}"
    ):
        check_clips(MAE, {"student": STUDENT})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("uta", "views.view1.frames: 'teacher' looks at pictures, not at clips"),
        ("m3i", "inputs.mixed.mix: mixes pictures, not clips"),
        ("novel_view", "terms.pixels: of a clip, single rows are explained by an input of the same view"),
    ],
)
def test_what_clips_cannot_be_used_for_is_refused(row: str, message: str) -> None:
    method = METHODS[row]
    views = {name: dataclasses.replace(view, frames=Frames(count=FRAMES)) for name, view in method.views.items()}
    with pytest.raises(UserError, match=message):
        check_clips(dataclasses.replace(method, views=views), {"student": STUDENT})


def test_a_clip_is_not_blended() -> None:
    with pytest.raises(ValueError, match="blend is for pictures"):
        Crop(frames=Frames(count=2), blend=Blend())


def test_hog_describes_single_frames() -> None:
    with pytest.raises(UserError, match="describes patches of one frame"):
        Hog(rows="hidden").build(8, 2)


@pytest.mark.parametrize("rows", ["pooled", "all+cls"])
def test_a_decoder_without_the_pooled_row_does_not_guess_it(rows: str) -> None:
    term = METHODS["mim_feature"].terms["features"]
    target = dataclasses.replace(term.target, rows=rows)
    for pooled, fits in (("in front", True), ("left out", False)):
        terms = {"t": dataclasses.replace(term, target=target, predictor=Decoder(pooled=pooled))}
        if fits:
            dataclasses.replace(METHODS["mim_feature"], terms=terms)
            continue
        with pytest.raises(UserError, match="this decoder guesses cells alone"):
            dataclasses.replace(METHODS["mim_feature"], terms=terms)


def test_a_setting_below_an_empty_one_says_how_it_is_given() -> None:
    plain = {"views": {"view1": {"frames": None, "size": 4}}}
    with pytest.raises(UserError, match=r"'views.view1.frames' is empty; give all of it: --views.view1.frames"):
        replace_leaf(plain, "views.view1.frames.count", 4)
    with pytest.raises(UserError, match=r"there is no setting 'views.view1.size'"):
        replace_leaf(plain, "views.view1.size.count", 4)
