"""The fast decoder against Pillow: equal at full size, near at smaller ones, and silent about nothing."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from PIL import Image

from loading import cut, flat, made, sized
from onestage.data import fast, open_source
from onestage.data.decode import File, Pixels, Stored
from onestage.data.fast import chosen, decode
from onestage.roles import BadSample
from onestage.spec import UserError
from onestage.views import Crop, Resize

pytest.importorskip("simplejpeg", reason="the extra `fast` is not installed")


@final
class Held(Stored):
    """A picture in memory."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def read(self) -> bytes:
        return self.content


def photograph(width: int = 500, height: int = 375) -> Image.Image:
    from sklearn.datasets import load_sample_images

    return Image.fromarray(load_sample_images().images[0]).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    coded = io.BytesIO()
    image.save(coded, "JPEG", **{"quality": 90, **options})
    return coded.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_full_size_is_pillows(mode: str, options: dict[str, object]) -> None:
    content = jpeg(photograph(123, 77).convert(mode), **options)
    made_fast = decode(Held(content), "fast", 1.0, 77)
    assert made_fast.scale == 1 and made_fast.pixels.shape == (77, 123, 3)
    difference = np.abs(made_fast.pixels.astype(int) - Held(content).decode())
    assert difference.max() <= 2 and difference.mean() < 0.05


@pytest.mark.parametrize(("shrink", "factor"), [(1.9, 1), (2.0, 2), (3.9, 2), (4.0, 4), (20.0, 8)])
def test_pictures_are_decoded_as_small_as_is_allowed(shrink: float, factor: int) -> None:
    made_fast = decode(Held(jpeg(photograph(501, 373))), "fast", shrink, 373)
    assert made_fast.scale == 1 / factor
    assert made_fast.pixels.shape == (-(-373 // factor), -(-501 // factor), 3)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("size", [64, 24])
def test_rows_below_the_views_are_not_decoded_and_change_nothing(subsampling: str, size: int) -> None:
    image = photograph(203, 333)
    content = jpeg(image.convert("L")) if subsampling == "grey" else jpeg(image, subsampling=subsampling)
    rng, view, shorter = np.random.default_rng(0), Crop(size=size, scale=(0.05, 0.9)), 0
    for _ in range(24):
        plan = view.plan(rng, 203, 333)
        whole, scale = decode(Held(content), "fast", plan.shrink, 333)
        part, again = decode(Held(content), "fast", plan.shrink, view.rows(plan))
        assert scale == again and len(part) <= len(whole)
        shorter += len(part) < len(whole)
        scaled = dataclasses.replace(plan, scale=scale)
        assert torch.equal(cut(view, part, scaled), cut(view, whole, scaled))
    assert shorter > 4


def test_what_cannot_be_shortened_is_decoded_whole() -> None:
    image = photograph(120, 333)
    several = [jpeg(image, progressive=True), jpeg(image, restart_marker_blocks=4), jpeg(image) + b"x" * 200]
    for content in several:
        assert decode(Held(content), "fast", 1.0, 40).pixels.shape == (333, 120, 3)
    assert decode(Held(jpeg(image)), "fast", 1.0, 330).pixels.shape == (333, 120, 3), "nothing to save"
    assert decode(Held(jpeg(image)), "fast", 1.0, 40).pixels.shape == (48, 120, 3)


def test_damage_above_is_damage_and_below_is_not_looked_at() -> None:
    """Damage that Pillow lets pass is shown as Pillow shows it; a file without its end is refused, wherever it ends."""
    content = jpeg(photograph(160, 320))
    torn = len(content) // 4
    above = content[:torn] + b"\xff\xd9" + content[torn + 2 :]
    pixels = decode(Held(above), "fast", 1.0, 160).pixels
    assert np.array_equal(pixels, Held(above).decode()) and pixels.shape == (320, 160, 3)
    with pytest.raises(BadSample):
        decode(Held(content[:-200]), "fast", 1.0, 60)


def test_a_view_is_the_same_to_the_eye() -> None:
    """At least 40 dB against Pillow's antialiased bicubic, on average 43, whatever the box."""
    content, view = jpeg(photograph(640, 427)), Crop(size=48, scale=(0.2, 1.0), flip=0.0)
    rng, found = np.random.default_rng(0), []
    for _ in range(24):
        plan = view.plan(rng, 640, 427)
        pixels, scale = decode(Held(content), "fast", plan.shrink, view.rows(plan))
        assert scale < 1
        got = cut(view, pixels, dataclasses.replace(plan, scale=scale)).permute(1, 2, 0).numpy().astype(float)
        top, left, height, width = plan.box
        inside = Image.fromarray(Held(content).decode()[top : top + height, left : left + width])
        wanted = np.asarray(inside.resize((48, 48), Image.Resampling.BICUBIC)).astype(float)
        found.append(10 * np.log10(255**2 / ((got - wanted) ** 2).mean()))
    assert min(found) > 40 and np.mean(found) > 43


def test_what_pillow_must_decode_it_decodes() -> None:
    tall = photograph(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, png = jpeg(tall, exif=exif), io.BytesIO()
    tall.save(png, "PNG")
    for content in (turned, png.getvalue(), jpeg(tall.convert("CMYK"))):
        made_fast = decode(Held(content), "fast", 8.0, 9)
        assert made_fast.scale == 1 and np.array_equal(made_fast.pixels, Held(content).decode())
    assert decode(Held(turned), "fast", 1.0, 9).pixels.shape == (60, 40, 3)
    assert decode(Pixels(np.zeros((9, 9, 3), np.uint8)), "fast", 8.0, 9).pixels.shape == (9, 9, 3)


@pytest.mark.parametrize("decoder", ["fast", "pillow"])
def test_damage_is_damage_for_both(decoder: fast.Decoder, tmp_path: Path) -> None:
    whole = jpeg(photograph(80, 60))
    for content in (whole[:-900], b"", b"\xff\xd8\xff", b"<html>", whole[:20] + b"x" * 500):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(BadSample):
            decode(File(tmp_path / "a.jpg"), decoder, 1.0, 30)


def test_geometry_does_not_depend_on_the_decoder(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(photograph(300 + 20 * number, 260)))
    (tmp_path / "broken.jpg").write_bytes(jpeg(photograph(300, 200))[:4000])
    source = open_source(str(tmp_path))
    one, two = (flat(made(source, sized("mae"), decoder=decoder)[0]) for decoder in ("fast", "pillow"))
    assert all(np.array_equal(one[name], two[name]) for name in one if not name.endswith("pixels"))
    difference = one["view1.pixels"].float() - two["view1.pixels"].float()
    assert 0 < float(difference.abs().mean()) < 3


def test_evaluations_see_every_pixel() -> None:
    assert Resize(size=16).plan(np.random.default_rng(0), 640, 480).shrink == 1
    assert Crop(size=None).plan(np.random.default_rng(0), 640, 480).shrink == 1


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(None) == "fast" and chosen("pillow") == "pillow"
    monkeypatch.setattr(fast, "is_installed", lambda: False)
    assert chosen(None) == "pillow"
    with pytest.raises(UserError, match="pip install"):
        chosen("fast")
