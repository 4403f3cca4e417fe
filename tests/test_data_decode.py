"""Every kind of file becomes upright 8-bit RGB or a bad sample with a reason, and `size` tells what `decode` gives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, WebPImagePlugin

from onestage.data import decode
from onestage.data.decode import File, Pixels
from onestage.roles import BadSample

GRADIENT = np.linspace(0, 255, 40 * 30).reshape(40, 30).astype(np.uint8)
COLOUR = np.stack([GRADIENT, GRADIENT.T.reshape(40, 30), 255 - GRADIENT], -1)


def saved(folder: Path, name: str, image: Image.Image, **how: object) -> File:
    image.save(folder / name, **how)
    return File(folder / name)


def pixels(picture: File) -> np.ndarray:
    """Decoded pixels, after everything that holds for all pictures."""
    seen = picture.decode()
    assert seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[2] == 3
    assert File(picture.path).size == (seen.shape[1], seen.shape[0])
    return seen


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tiff", "webp"])
def test_colour_without_loss(tmp_path: Path, ending: str) -> None:
    how = {"lossless": True} if ending == "webp" else {}
    assert np.array_equal(pixels(saved(tmp_path, f"a.{ending}", Image.fromarray(COLOUR), **how)), COLOUR)


def test_jpeg(tmp_path: Path) -> None:
    seen = pixels(saved(tmp_path, "a.jpg", Image.fromarray(COLOUR).resize((300, 400)), quality=95))
    assert np.abs(seen[5::10, 5::10].astype(int) - COLOUR).mean() < 12


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif"])
def test_grey(tmp_path: Path, name: str) -> None:
    seen = pixels(saved(tmp_path, name, Image.fromarray(GRADIENT)))
    assert np.abs(seen.astype(int) - GRADIENT[..., None]).max() <= 3


def test_one_bit(tmp_path: Path) -> None:
    seen = pixels(saved(tmp_path, "a.png", Image.fromarray(GRADIENT > 128)))
    assert np.array_equal(seen, np.repeat((GRADIENT > 128)[..., None], 3, -1) * np.uint8(255))


def test_palette(tmp_path: Path) -> None:
    few = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(pixels(saved(tmp_path, "a.png", few)), np.asarray(few.convert("RGB")))
    assert np.array_equal(pixels(saved(tmp_path, "a.gif", few)), np.asarray(few.convert("RGB")))


def test_palette_with_a_clear_colour_lies_on_white(tmp_path: Path) -> None:
    image = Image.fromarray((GRADIENT > 128).astype(np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    for how in ({"transparency": 1}, {"transparency": b"\xff\x00"}):
        seen = pixels(saved(tmp_path, "a.png", image, **how))
        assert np.array_equal(seen, np.where((GRADIENT > 128)[..., None], (255, 255, 255), (200, 0, 0)))


def test_colours_with_opacity_lie_on_white(tmp_path: Path) -> None:
    clear = np.dstack([COLOUR, np.full_like(GRADIENT, 64)])
    clear[:20, :, 3] = 0
    seen = pixels(saved(tmp_path, "a.png", Image.fromarray(clear))).astype(float)
    assert (seen[:20] == 255).all()
    assert np.abs(seen[20:] - (COLOUR[20:] * (64 / 255) + 255 * (1 - 64 / 255))).max() <= 1.01


def test_grey_with_opacity_lies_on_white(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.fromarray(GRADIENT), Image.fromarray(np.full_like(GRADIENT, 128))])
    seen = pixels(saved(tmp_path, "a.png", image)).astype(float)
    assert np.abs(seen[..., 0] - (GRADIENT * (128 / 255) + 255 * (1 - 128 / 255))).max() <= 1.01


def test_cmyk(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (30, 40), (0, 255, 255, 0))  # magenta and yellow make red
    for name in ("a.jpg", "a.tif"):
        seen = pixels(saved(tmp_path, name, ink))
        assert (seen[..., 0] > 240).all() and (seen[..., 1:] < 15).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_sixteen_bits_by_their_upper_eight(tmp_path: Path, name: str) -> None:
    deep = (GRADIENT.astype(np.uint16) * 257) // 4  # a dark picture stays dark
    seen = pixels(saved(tmp_path, name, Image.fromarray(deep)))
    assert np.abs(seen.astype(float) - deep[..., None] / 257).max() <= 0.51


def test_floating_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSample, match="floating-point"):
        saved(tmp_path, "a.tif", Image.fromarray(GRADIENT.astype(np.float32))).decode()


def lying(orientation: int) -> np.ndarray:
    """How a camera that says `orientation` stores COLOUR (EXIF 2.3: which side of it row 0 and column 0 are)."""
    return {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: COLOUR.transpose(1, 0, 2)[::-1],
        7: COLOUR.transpose(1, 0, 2)[::-1, ::-1],
        8: COLOUR.transpose(1, 0, 2)[:, ::-1],
    }[orientation]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_becomes_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    stored = Image.fromarray(np.ascontiguousarray(lying(orientation)))
    picture = saved(tmp_path, f"a.{ending}", stored, exif=exif, **how)
    assert picture.size == (30, 40)
    assert np.abs(pixels(picture).astype(int) - COLOUR).mean() < 12


def test_orientation_of_a_palette_and_of_sixteen_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    few = Image.fromarray(np.ascontiguousarray(lying(6))).quantize(16)
    upright = np.asarray(few.convert("RGB").rotate(-90, expand=True))
    assert np.array_equal(pixels(saved(tmp_path, "a.png", few, exif=exif)), upright)
    deep = GRADIENT.astype(np.uint16) * 257
    picture = saved(tmp_path, "b.png", Image.fromarray(np.ascontiguousarray(deep.T[::-1])), exif=exif)
    assert np.array_equal(pixels(picture), np.repeat(GRADIENT[..., None], 3, -1))


def test_a_broken_exif_block_does_not_break_the_picture(tmp_path: Path) -> None:
    picture = saved(tmp_path, "a.jpg", Image.fromarray(COLOUR), exif=b"Exif\x00\x00" + bytes(range(64)))
    assert pixels(picture).shape == (40, 30, 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm"])
def test_the_size_is_read_without_the_pixels(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = saved(tmp_path, f"a.{ending}", Image.fromarray(COLOUR))
    loaded = []
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", lambda image: loaded.append(image.format))
    assert picture.size == picture.size == (30, 40)
    assert loaded == []


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@pytest.mark.parametrize("side", [9_487, 10_001, 60_000])
def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    """Below, just above, and far above the bound; Pillow warns of the first and has a limit of its own for the last."""
    path = tmp_path / "a.png"
    path.write_bytes(png_header(side, side) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))
    if side * side <= decode.MAX_PIXELS:
        assert File(path).size == (side, side)
        return
    for ask in (lambda: File(path).size, File(path).decode):
        with pytest.raises(BadSample, match=r"more than 100000000|too many pixels"):
            ask()


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = saved(tmp_path, "a.bmp", Image.fromarray(COLOUR))
    monkeypatch.setattr(decode, "MAX_BYTES", 1000)
    with pytest.raises(BadSample, match="bytes, more than 1000"):
        picture.decode()


DAMAGED = {
    "empty": b"",
    "text": b"this is no picture at all\n" * 20,
    "header of a jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "header of a png": png_header(30, 40),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 40\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_bad_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(BadSample) as caught:
        File(path).decode()
    reason = str(caught.value)
    assert 0 < len(reason) <= 200 and "\n" not in reason and str(tmp_path) not in reason
    assert reason == {"empty": "the file is empty", "text": "not an image", "postscript": "not an image"}.get(
        name, reason
    )


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm"])
def test_truncated_files_are_bad_samples(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = saved(tmp_path, f"a.{ending}", Image.fromarray(noise))
    whole = picture.path.read_bytes()
    picture.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadSample):
        File(picture.path).decode()


def test_a_real_truncated_jpeg(test_data: Path) -> None:
    with pytest.raises(BadSample, match="truncated"):
        File(test_data / "corrupt" / "truncated_by_20_bytes.jpg").decode()


def test_what_is_no_file_is_a_bad_sample(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "absent.jpg", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "a\0b.jpg", "null byte"),
    ):
        with pytest.raises(BadSample, match=reason):
            File(path).decode()
        with pytest.raises(BadSample, match=reason):
            _ = File(path).size


def test_no_truncated_images_are_let_through() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_pixels_in_memory() -> None:
    assert Pixels(COLOUR).size == (30, 40)
    assert Pixels(COLOUR).decode() is COLOUR
