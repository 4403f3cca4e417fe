"""Rows of the table as declared: through YAML and back, their regularisers, and what is refused with which words."""

from __future__ import annotations

import pytest
import yaml

from onestage.encoders import Vit
from onestage.likelihood import Boltzmann, Gaussian
from onestage.methods import METHODS
from onestage.methods.distilled import UTA
from onestage.objective import Answers, Input, Method, Objective, Part, Term, Trained, regulariser
from onestage.predictors import Linear
from onestage.spec import UserError, from_plain, to_plain, to_yaml
from onestage.targets import Encoded, Table
from onestage.views import Crop

VIT = Vit(arch="vit_tiny_patch16_224", size=48, patch=8, width=32, depth=2, heads=2)


@pytest.mark.parametrize("name", METHODS)
def test_every_row_survives_yaml(name: str) -> None:
    method = METHODS[name]
    assert from_plain(Method, yaml.safe_load(to_yaml(method))) == method
    assert to_plain(from_plain(Method, to_plain(method))) == to_plain(method)


def test_a_row_that_would_collapse_is_refused() -> None:
    with pytest.raises(UserError, match=r"terms.self: the row would collapse.*'student'"):
        Method(
            name="bad",
            cite="-",
            encoders={"student": Trained()},
            inputs={"image": Input(encoder="student", parts={"image": Part(of="view1")})},
            terms={
                "self": Term(
                    x="image",
                    y="view1",
                    target=Encoded(encoder="student", rows="pooled"),
                    predictor=Linear(),
                    likelihood=Gaussian(form="cosine"),
                )
            },
            views={"view1": Crop()},
        )


def test_regularisers_are_the_column_of_the_table() -> None:
    words = {name: regulariser(row, next(iter(row.terms.values()))) for name, row in METHODS.items()}
    average, decorrelated = "stop gradient", "stop gradient + decorrelation"
    assert words == {
        **dict.fromkeys(("supervised", "deit", "deit_distilled", "deit3"), "negative categories"),
        **dict.fromkeys(("clip", "flip", "siglip", "lit", "uta_tuned"), "negatives"),
        **dict.fromkeys(
            ("fd", "eva02", "maskalign", "umt", "milan", "vqkd", "beit", "peco", "beit2", "cae", "beit3"),
            "stop gradient",
        ),
        **dict.fromkeys(("mae", "video_mae", "peco_vq"), "-"),
        "eva": "stop gradient",
        "mvp": "stop gradient",
        "uta": "stop gradient",
        "uta_mim": "stop gradient",
        "uta_text": "stop gradient",
        **dict.fromkeys(
            ("simmim", "maskfeat", "auto_encoder", "mim_pixel", "novel_view", "siamese_pixel", "mixmim"), "-"
        ),
        **dict.fromkeys(("global_distillation", "instance", "dense_instance", "instance_masked"), "negatives"),
        **dict.fromkeys(("mim_feature", "mim_global", "siamese_feature"), decorrelated),
        **dict.fromkeys(("m3i", "m3i_text", "m3i_both", "m3i_unmixed"), decorrelated),
        "dense_distillation": average,
        **dict.fromkeys(("moco_v2", "densecl", "moco_v3"), "negatives"),
        "byol": average,
        "ibot": "stop gradient + centring",
        "dino": "stop gradient + centring",
        "msn": "stop gradient + me-max",
        "barlow_twins": "decorrelation",
        "data2vec": average,
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("terms", "align", "x"), "kapt", r"terms.align.x: there is no 'kapt' here; did you mean 'kept'"),
        (("terms", "align", "y"), "view2", r"terms.align.y: there is no 'view2'"),
        (("terms", "align", "target", "encoder"), "teachr", r"did you mean 'teacher'"),
        (("terms", "align", "target", "rows"), "hidden", r"reads the encoder's own rows"),
        (("inputs", "kept", "encoder"), "teacher", r"inputs.kept.encoder"),
        (("inputs", "kept", "parts", "image", "mode"), "full", r"hide and mode go together"),
    ],
)
def test_a_row_that_cannot_work_says_why(path: tuple[str, ...], value: str, message: str) -> None:
    plain = to_plain(UTA)
    node = plain
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(UserError, match=message):
        from_plain(Method, plain)


def test_grids_that_differ_say_which_size_fits() -> None:
    with pytest.raises(UserError, match=r"student's grid is 6x6 but the grid of 'teacher' is 7x7.*needs size 56"):
        Objective(UTA, {"student": VIT}, {"teacher": Answers((7, 7), 24, 40)})


def test_table_needs_classes() -> None:
    with pytest.raises(UserError, match="number of classes is unknown"):
        Objective(METHODS["supervised"], {"student": VIT}, {}, classes=None)
    fixed = Table(classes=5)
    assert fixed.build(8, 5).weight.shape == (5, 8)


def test_boltzmann_of_a_trained_text_is_no_collapse() -> None:
    assert Boltzmann(over="batch").regulariser == "negatives"
