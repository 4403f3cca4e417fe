"""What the tests of the command line type, and what they draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = [
    *("--batch", "8", "--workers", "0", "--precision", "fp32"),
    *("--models.student.width", "32", "--models.student.depth", "1", "--models.student.heads", "2"),
    *("--method.terms.pixels.predictor.width", "32", "--method.terms.pixels.predictor.depth", "1"),
]
Capture = pytest.CaptureFixture[str]


def draw(path: Path, seed: int) -> None:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
