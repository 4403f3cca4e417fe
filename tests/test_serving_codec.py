"""Rows as bytes and back: nearly the same direction, whatever stands out, and within the bytes that were promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from onestage.data import Scenes
from onestage.objective import Ask
from onestage.pretraining import start
from onestage.teachers import load
from onestage.teachers.serving.codec import OUTLIERS, Codec, decode, encode, record_bytes
from small import small

CODECS: tuple[Codec, ...] = ("int8", "fp16")


def there_and_back(rows: Tensor, codec: Codec) -> Tensor:
    records = encode(rows, codec)
    assert records.dtype == torch.uint8
    assert records.shape == (rows.shape[0], record_bytes(codec, *rows.shape[1:]))
    return decode(records, rows.shape[1], rows.shape[2], codec)


def close(rows: Tensor, codec: Codec) -> None:
    found = cosine_similarity(there_and_back(rows, codec), rows.float(), dim=-1)
    assert float(found.mean()) >= 0.999
    assert float(found.min()) >= 0.99


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("width", [64, 512, 1024])
@pytest.mark.parametrize("far", [0, 1, 3])
def test_tokens_with_channels_at_twenty_sigma(codec: Codec, width: int, far: int) -> None:
    rows = torch.randn(4, 50, width, generator=torch.Generator().manual_seed(0))
    rows[..., torch.arange(far) * 7] = 20.0
    close(rows, codec)


@pytest.mark.parametrize("space", ["joint", "raw"])
@pytest.mark.parametrize("codec", CODECS)
def test_rows_of_a_trained_teacher(codec: Codec, space: str, trained: Path) -> None:
    teacher = load(str(trained))
    pixels = torch.stack([torch.from_numpy(Scenes()[i].picture.decode().copy()) for i in range(16)])
    tokens = teacher.tokens(pixels.permute(0, 3, 1, 2).float() / 255, Ask("teacher", "view1", space).space)  # pyright: ignore[reportArgumentType]
    close(torch.cat([tokens.pooled.unsqueeze(1), tokens.rows], dim=1), codec)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("teacher") / "run"
    start(small("clip", data="scenes"), run, [])
    return run


def slow(row: list[float]) -> list[float]:
    """The int8 code of one row, written out."""
    order = sorted(range(len(row)), key=lambda i: -abs(row[i]))
    apart = set(order[:OUTLIERS])
    scale = max((abs(row[i]) for i in range(len(row)) if i not in apart), default=0.0) / 127
    return [value if i in apart or scale == 0 else round(value / scale) * scale for i, value in enumerate(row)]


def test_int8_is_what_its_formula_says() -> None:
    rows = torch.randn(3, 5, 19, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = there_and_back(rows, "int8")
    for b in range(3):
        for t in range(5):
            wanted = torch.tensor(slow(rows[b, t].tolist()), dtype=torch.float64)
            step = float(rows[b, t].abs().sort(descending=True).values[OUTLIERS]) / 127
            assert float((found[b, t] - wanted).abs().max()) < 1e-5, "no more than rounding of fp32"
            assert float((found[b, t] - rows[b, t]).abs().max()) <= 0.501 * step


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [torch.zeros(2, 3, 8), torch.full((2, 3, 3), 2.5), torch.eye(16).expand(2, 16, 16)])
def test_simple_rows_come_back_as_they_were(codec: Codec, rows: Tensor) -> None:
    assert torch.equal(there_and_back(rows, codec), rows)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_not_finite_is_not_hidden(codec: Codec) -> None:
    """A step that a broken teacher answers for has to be skipped, not learned from."""
    for count in (1, OUTLIERS + 1):
        rows = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(2))
        rows[0, 1, :count] = torch.nan
        found = there_and_back(rows, codec)
        assert bool(found[0, 0].isfinite().all())
        assert bool(found[0, 1].isnan().any())


@pytest.mark.parametrize("codec", CODECS)
def test_coding_twice_is_coding_once(codec: Codec) -> None:
    once = there_and_back(torch.randn(2, 6, 33, generator=torch.Generator().manual_seed(3)), codec)
    assert float((there_and_back(once, codec) - once).abs().max()) < 1e-6


def test_a_quarter_of_fp32_at_usual_widths() -> None:
    assert record_bytes("int8", 257, 1024) / (257 * 1024 * 4) < 0.258
