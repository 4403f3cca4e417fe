"""RandAugment, 3-Augment and random erasing: pixels against timm's operations on PIL, and how parameters are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops

from loading import cut
from onestage.views import Colour, Crop, Erase, RandAugment, ThreeAugment
from onestage.views.augment import RAND, erase, factor_of
from onestage.views.colour import recolour

PICTURE = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((56, 48), 3)
)
SMOOTH = (PICTURE * 0.8 + 20).astype(np.uint8)
IMAGE = torch.from_numpy(SMOOTH.copy()).permute(2, 0, 1).contiguous()
TIMM = {
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "saturation": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


@pytest.mark.parametrize("level", [0.0, 3.3, 9.0, 9.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", RAND)
def test_each_operation_is_that_of_timm(name: str, sign: float, level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels to factors exactly; pixels to a rounding, and for warps inside of where the filling begins."""
    monkeypatch.setattr(timm_ops.random, "random", lambda: 0.0 if sign > 0 else 1.0)
    levels = timm_ops.LEVEL_TO_ARG[TIMM[name]]
    given = () if levels is None else levels(level, {})
    factor = factor_of(name, level / 10, sign)
    if given:
        assert factor == pytest.approx(min(given[0], 255))  # no value of this picture is 255
    kept = {"fillcolor": (124, 116, 104), "resample": Image.Resampling.BILINEAR}
    theirs = np.asarray(timm_ops.NAME_TO_OP[TIMM[name]](Image.fromarray(SMOOTH), *given, **kept)).astype(int)
    ours = recolour(IMAGE, ((name, factor),)).permute(1, 2, 0).numpy().astype(int)
    apart = np.abs(ours - theirs).max(axis=-1)
    warps = name == "rotate" or name.startswith(("shear", "translate"))
    assert (apart <= 3).mean() > (0.93 if warps else 0.999), np.percentile(apart, [50, 90, 99])
    if level > 1 and name != "equalize":
        assert (ours != SMOOTH).any()


def test_no_bits_kept_is_black() -> None:
    """At the greatest magnitude, which newer PIL refuses."""
    assert factor_of("posterize", 1.0, 1.0) == 0 and not recolour(IMAGE, (("posterize", 0.0),)).any()


def test_the_list_of_operations_is_timms() -> None:
    assert sorted(TIMM.values()) == sorted(timm_ops._RAND_INCREASING_TRANSFORMS) and set(TIMM) == set(RAND)


def test_what_randaugment_draws() -> None:
    rng, made = np.random.default_rng(0), RandAugment()
    drawn = [made.draw(rng) for _ in range(4000)]
    lengths = Counter(len(one) for one in drawn)
    assert all(abs(lengths[n] / 4000 - share) < 0.03 for n, share in ((0, 0.25), (1, 0.5), (2, 0.25)))
    names = Counter(name for one in drawn for name, _ in one)
    assert set(names) == set(RAND) and max(names.values()) < 1.5 * min(names.values())
    turned = [factor for one in drawn for name, factor in one if name == "rotate"]
    assert 26 < np.mean(np.abs(turned)) < 28 and -5 < np.mean(turned) < 5 and 0.8 < np.std(np.abs(turned)) < 1.6


def test_what_three_augment_draws() -> None:
    rng = np.random.default_rng(0)
    drawn = [ThreeAugment().draw(rng) for _ in range(3000)]
    assert {len(one) for one in drawn} == {1}
    assert all(abs(count / 3000 - 1 / 3) < 0.03 for count in Counter(one[0][0] for one in drawn).values())
    assert {one[0][0] for one in drawn} == {"grey", "solarize", "blur"}


def test_what_is_erased() -> None:
    rng, made = np.random.default_rng(0), Erase()
    drawn = [made.draw(rng, 64) for _ in range(4000)]
    boxes = np.array([one.box for one in drawn if one is not None])
    assert 0.22 < len(boxes) / 4000 < 0.28
    top, left, height, width = boxes.T
    assert (top + height <= 64).all() and (left + width <= 64).all() and min(top.min(), left.min()) == 0
    shares, aspects = height * width / 64**2, height / width
    assert shares.min() > 0.017 and shares.max() < 0.35 and abs(np.log(aspects).mean()) < 0.1
    assert aspects.min() > 0.25 and aspects.max() < 4


def test_the_noise_of_what_is_erased() -> None:
    erased = next(one for one in (Erase(probability=1.0).draw(np.random.default_rng(n), 48) for n in range(9)) if one)
    image = torch.zeros(3, 48, 48, dtype=torch.uint8)
    found = erase(image, erased)
    top, left, height, width = erased.box
    inside = torch.zeros(48, 48, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert not found[:, ~inside].any() and not image.any() and found.equal(erase(image, erased))
    assert abs(found[:, inside].double().mean() / 255 - 0.449) < 0.05
    assert 0.18 < found[:, inside].double().std() / 255 < 0.26


def test_a_view_with_all_of_them_is_its_plan() -> None:
    view = Crop(size=32, augment=RandAugment(probability=1.0), colour=Colour(grey=1.0), erase=Erase(probability=1.0))
    assert view.alters == {"crop", "flip", "colour", "warp", "erase"}
    plan = view.plan(np.random.default_rng(1), 56, 48)
    assert len(plan.colour) == 3 and plan.colour[-1][0] == "grey" and plan.erased is not None
    found = cut(view, SMOOTH, plan)
    assert found.shape == (3, 32, 32) and found.equal(cut(view, SMOOTH, plan))
    other = cut(view, SMOOTH, view.plan(np.random.default_rng(2), 56, 48))
    assert not found.equal(other)
