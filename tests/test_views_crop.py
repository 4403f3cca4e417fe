"""Crop and Resize: where boxes fall, what the pixels are, and that the two agree."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import yaml
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import InterpolationMode, functional

from loading import cut
from onestage.roles import Plan
from onestage.spec import UserError, from_plain, spec, to_yaml
from onestage.views import Colour, Crop, Resize, ViewSpec
from onestage.views.crop import random_box


@spec
class Viewed:
    """How a recipe holds a view."""

    view: ViewSpec


MODES = [("bicubic", InterpolationMode.BICUBIC), ("bilinear", InterpolationMode.BILINEAR)]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def noise(height: int, width: int) -> np.ndarray:
    return generator(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


@pytest.mark.parametrize("size", [(500, 375), (120, 400)])
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 0.6), (1.2, 2.0))])
def test_boxes_have_the_distribution_of_torchvision(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    width, height = size
    draws, rng = 5000, generator(1)
    ours = np.array([random_box(rng, width, height, scale, ratio) for _ in range(draws)])
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(draws)])
    top, left, h, w = ours.T
    assert (ours >= 0).all() and (h > 0).all() and (w > 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    for statistic in (_area, _log_aspect, _centre_row, _centre_column):
        a, b = statistic(ours), statistic(theirs)
        error = math.sqrt((a.var() + b.var()) / draws)
        assert abs(a.mean() - b.mean()) < 4 * error
        assert a.std() == pytest.approx(b.std(), rel=0.06)


def _area(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2] * boxes[:, 3] / 1e4


def _log_aspect(boxes: np.ndarray) -> np.ndarray:
    return np.log(boxes[:, 3] / boxes[:, 2])


def _centre_row(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 0] + boxes[:, 2] / 2


def _centre_column(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 1] + boxes[:, 3] / 2


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 10), (0, 494, 10, 13)),  # wider than 4/3: 13 columns in the middle
        ((10, 1000), (494, 0, 13, 10)),  # narrower than 3/4: 13 rows in the middle
        ((12, 10), (0, 0, 10, 12)),  # allowed: all of it
        ((1, 1), (0, 0, 1, 1)),
        ((1000, 1), (0, 500, 1, 1)),  #
    ],
)
def test_a_crop_that_never_fits_falls_back_to_the_centre(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """With ten times the area of the picture no attempt can succeed."""
    found = random_box(generator(0), size[0], size[1], (10.0, 10.0), (3 / 4, 4 / 3))
    assert found[2:] == box[2:]
    assert found[0] in (box[0], box[0] - 1) and found[1] in (box[1], box[1] - 1)


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("flip", [False, True])
def test_crop_pixels_are_those_of_torchvision(name: str, mode: InterpolationMode, flip: bool) -> None:
    pixels, box = noise(75, 100), (5, 11, 60, 47)
    colour = (("contrast", 1.3), ("hue", -0.05), ("brightness", 0.7))
    expected = functional.resized_crop(planes(pixels), *box, [32, 32], interpolation=mode, antialias=True)
    expected = functional.horizontal_flip(expected) if flip else expected
    expected = functional.adjust_contrast(expected, 1.3)
    expected = functional.adjust_hue(expected, -0.05)
    expected = functional.adjust_brightness(expected, 0.7)
    found = cut(Crop(size=32, interpolation=name), pixels, Plan(box=box, flip=flip, colour=colour))
    assert found.dtype == torch.uint8 and found.shape == (3, 32, 32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("shape", [(75, 100), (100, 75), (40, 40), (41, 60), (20, 30)])
def test_resize_pixels_are_those_of_torchvision(name: str, mode: InterpolationMode, shape: tuple[int, int]) -> None:
    pixels, view = noise(*shape), Resize(size=40, interpolation=name)
    expected = functional.resize(planes(pixels), [40], interpolation=mode, antialias=True)
    expected = functional.center_crop(expected, [40, 40])
    plan = view.plan(generator(0), shape[1], shape[0])
    assert torch.equal(cut(view, pixels, plan), expected)


def gradient(height: int, width: int) -> np.ndarray:
    """Each pixel holds its own row and column (below 256, so that they can be read back)."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def read_back(view: torch.Tensor, box: tuple[int, int, int, int], flip: bool) -> float:
    """The greatest distance, in source pixels, from where a view's pixel is to where the box says it is."""
    size, (top, left, height, width) = view.shape[-1], box
    centre = (torch.arange(size) + 0.5) / size
    rows = top + centre * height - 0.5
    columns = left + (1 - centre if flip else centre) * width - 0.5
    wrong_rows = (view[0].double() - rows[:, None]).abs()
    wrong_columns = (view[1].double() - columns[None, :]).abs()
    inside = slice(size // 8, -(size // 8))  # resampling bends a ramp at its border
    return max(wrong_rows[inside, inside].max().item(), wrong_columns[inside, inside].max().item())


def test_box_is_in_unflipped_source_pixels() -> None:
    pixels, view, rng, flips = gradient(180, 240), Crop(size=64), generator(3), []
    for _ in range(40):
        plan = view.plan(rng, 240, 180)
        made = cut(view, pixels, plan)
        flips.append(plan.flip)
        assert read_back(made, plan.box, plan.flip) < 1.0
        assert read_back(made, plan.box, not plan.flip) > 10.0
    assert 8 < sum(flips) < 32


@pytest.mark.parametrize("shape", [(180, 240), (240, 180), (241, 96), (97, 240), (64, 64)])
def test_resize_box_is_the_centred_square(shape: tuple[int, int]) -> None:
    height, width = shape
    view = Resize(size=64)
    plan = view.plan(generator(0), width, height)
    side = min(height, width)
    assert plan.box[2:] == (side, side) and not plan.flip and plan.colour == ()
    tolerance = side / 64 + 1.0  # a pixel of the view; half a pixel for the box, half for rounding to uint8
    assert read_back(cut(view, gradient(height, width), plan), plan.box, flip=False) < tolerance


def test_resize_of_a_very_long_picture_stays_small() -> None:
    """Resizing all of 4 x 300,000 pixels by 16 would take 900 MB; the middle of it does not."""
    pixels, view = np.zeros((4, 300_000, 3), dtype=np.uint8), Resize(size=64)
    pixels[:, 149_990:150_010] = noise(4, 20)
    made = cut(view, pixels, view.plan(generator(0), 300_000, 4))
    middle = planes(pixels[:, 149_950:150_050])
    expected = functional.resize(middle, [64], interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(made, functional.center_crop(expected, [64, 64]))


def test_read_only_pixels_give_no_warning_and_stay_as_they_were() -> None:
    pixels = noise(32, 32)
    before = pixels.copy()
    pixels.setflags(write=False)
    everything = Plan(box=(0, 0, 32, 32), colour=(("brightness", 0.5),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut(Crop(size=32), pixels, everything)
        cut(Resize(size=32), pixels, Plan(box=(0, 0, 32, 32)))
    assert (pixels == before).all()


def test_a_view_lies_where_it_belongs_and_nowhere_else() -> None:
    pixels, places = noise(50, 60), np.zeros((3, 3, 16, 16), np.uint8)
    plan = Plan(box=(5, 7, 30, 40), flip=True)
    Crop(size=16).cut(pixels, plan, places[1])
    expected = functional.resize(planes(pixels[5:35, 7:47]), [16, 16], InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(torch.from_numpy(places[1]), expected.flip(-1))
    assert not places[0].any() and not places[2].any()


def test_the_same_generator_gives_the_same_plan() -> None:
    view = Crop(colour=Colour(brightness=0.4, hue=0.1, grey=0.2, blur=0.5, solarize=0.2))
    plans = [view.plan(generator(seed), 500, 375) for seed in (5, 5, 6)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize(
    ("view", "alters"),
    [
        (Crop(), {"crop", "flip"}),
        (Crop(flip=0.0), {"crop"}),
        (Crop(scale=(1.0, 1.0), flip=0.0), set()),
        (Crop(scale=(1.0, 1.0), colour=Colour(grey=0.1)), {"flip", "colour"}),
        (Crop(colour=Colour()), {"crop", "flip"}),
        (Resize(), set()),
    ],
)
def test_alters_names_what_may_change(view: Crop | Resize, alters: set[str]) -> None:
    assert view.alters == alters


@pytest.mark.parametrize(
    "view",
    [
        Crop(),
        Crop(size=96, scale=(0.05, 0.4), ratio=(1.0, 1.0), flip=0.0, interpolation="bilinear"),
        Crop(colour=Colour(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1, grey=0.2, blur=1.0)),
        Resize(size=336, interpolation="bilinear"),
    ],
)
def test_views_round_trip_through_yaml(view: Crop | Resize) -> None:
    held = Viewed(view=view)
    assert from_plain(Viewed, yaml.safe_load(to_yaml(held))) == held


@pytest.mark.parametrize(
    ("plain", "path"),
    [
        ({"kind": "crop", "size": 0}, "size"),
        ({"kind": "crop", "scale": [0.5, 0.2]}, "scale"),
        ({"kind": "crop", "scale": [0.0, 1.0]}, "scale.0"),
        ({"kind": "crop", "ratio": [2.0, 0.5]}, "ratio"),
        ({"kind": "crop", "flip": 1.5}, "flip"),
        ({"kind": "crop", "interpolation": "nearest"}, "interpolation"),
        ({"kind": "crop", "colour": {"hue": 0.6}}, "colour.hue"),
        ({"kind": "resize", "flip": 0.5}, "flip"),
    ],
)
def test_a_wrong_view_is_refused_with_its_path(plain: dict[str, object], path: str) -> None:
    with pytest.raises(UserError, match=f"^view.{path}: "):
        from_plain(Viewed, {"view": plain})
