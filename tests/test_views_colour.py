"""Colour: the pixels are torchvision's for given factors, and the factors have the stated distribution."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from onestage.views import Colour
from onestage.views.colour import recolour

IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 20), dtype=np.uint8))
EXPECTED = {
    "brightness": lambda image: functional.adjust_brightness(image, 0.4),
    "contrast": lambda image: functional.adjust_contrast(image, 0.4),
    "saturation": lambda image: functional.adjust_saturation(image, 0.4),
    "hue": lambda image: functional.adjust_hue(image, 0.4),
    "grey": lambda image: functional.rgb_to_grayscale(image, num_output_channels=3),
    "blur": lambda image: functional.gaussian_blur(image, [3, 3], [0.4, 0.4]),
    "solarize": lambda image: functional.solarize(image, 0.4),
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_each_operation_is_that_of_torchvision(name: str) -> None:
    found = recolour(IMAGE, ((name, 0.4),))
    assert found.dtype == torch.uint8 and found.shape == IMAGE.shape
    assert torch.equal(found, EXPECTED[name](IMAGE))
    assert not torch.equal(found, IMAGE)


def test_operations_are_applied_in_their_order() -> None:
    one = recolour(IMAGE, (("brightness", 1.8), ("contrast", 0.3)))
    other = recolour(IMAGE, (("contrast", 0.3), ("brightness", 1.8)))
    assert torch.equal(one, functional.adjust_contrast(functional.adjust_brightness(IMAGE, 1.8), 0.3))
    assert not torch.equal(one, other)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="sharpen"):
        recolour(IMAGE, (("sharpen", 1.0),))


@pytest.mark.parametrize("side", [1, 2, 4, 8, 32])
def test_the_widest_blur_fits_a_view_of_any_size(side: int) -> None:
    image = torch.full((3, side, side), 90, dtype=torch.uint8)
    assert torch.equal(recolour(image, (("blur", 2.0),)), image)


def test_blur_spreads_a_point_by_its_sigma() -> None:
    """The second moment of a blurred point is sigma squared (a kernel cut at three sigma keeps 97 %)."""
    image = torch.zeros(3, 41, 41, dtype=torch.uint8)
    image[:, 18:23, 18:23] = 255
    weight = recolour(image, (("blur", 2.0),))[0].double().sum(0)
    offset = torch.arange(41).double() - 20
    spread = (weight * offset**2).sum() / weight.sum()
    assert spread.item() == pytest.approx(2.0 + 4.0, rel=0.05)  # five pixels in a row have a moment of 2


def test_factors_are_uniform_and_operations_as_frequent_as_asked() -> None:
    colour = Colour(
        brightness=0.4,
        contrast=1.5,
        saturation=0.2,
        hue=0.1,
        probability=0.8,
        grey=0.2,
        blur=0.5,
        solarize=0.1,
    )
    rng, draws = np.random.Generator(np.random.Philox(0)), 5000
    drawn = [colour.draw(rng) for _ in range(draws)]
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.0, 2.5), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    ranges |= {"grey": (1.0, 1.0), "blur": (0.1, 2.0), "solarize": (128.0, 128.0)}
    share = {"grey": 0.2, "blur": 0.5, "solarize": 0.1}
    for name, (low, high) in ranges.items():
        factors = np.array([factor for view in drawn for operation, factor in view if operation == name])
        assert len(factors) / draws == pytest.approx(share.get(name, 0.8), abs=0.03)
        assert factors.min() >= low and factors.max() <= high
        assert factors.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert factors.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)


def test_jitter_comes_in_every_order_and_before_the_rest() -> None:
    colour = Colour(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=1.0, grey=1.0, blur=1.0)
    rng = np.random.Generator(np.random.Philox(1))
    orders = Counter(tuple(name for name, _ in colour.draw(rng)) for _ in range(4800))
    assert len(orders) == 24
    assert min(orders.values()) > 140 and max(orders.values()) < 260
    assert all(order[4:] == ("grey", "blur") for order in orders)


def test_what_is_off_is_never_drawn() -> None:
    rng = np.random.Generator(np.random.Philox(2))
    assert all(Colour().draw(rng) == () for _ in range(200))
    assert {name for _ in range(200) for name, _ in Colour(saturation=0.4).draw(rng)} == {"saturation"}


@pytest.mark.parametrize(
    ("colour", "changes"),
    [
        (Colour(), False),
        (Colour(hue=0.1), True),
        (Colour(hue=0.1, probability=0.0), False),
        (Colour(probability=0.0, solarize=0.1), True),
    ],
)
def test_changes_says_whether_anything_can_happen(colour: Colour, changes: bool) -> None:
    assert colour.changes is changes
