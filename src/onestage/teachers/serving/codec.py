"""Rows of a teacher as bytes: int8 with one scale a row and its outliers apart, or fp16.

A few channels of a vision transformer's rows stand far out (Darcet et al., arXiv:2309.16588; Dettmers et al.,
arXiv:2208.07339). One of them at twenty deviations would take the steps from all other channels; so the `OUTLIERS`
largest values of each row are kept as they are, and the scale is that of the rest:

    row ~ scale * q + outliers,   scale = max |rest| / 127,   q = round(rest / scale)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from onestage.types import Grid

Codec = Literal["int8", "fp16"]

OUTLIERS = 4
"""Values of a row that are kept as they are."""
LEVELS = 127
MAX_WIDTH = 1 << 15
"""Of a row: its channels are numbered in 16 bits."""
FP16_MAX = 65504.0


def record_bytes(codec: Codec, rows: int, width: int) -> int:
    """Bytes of so many rows of `width` values."""
    if codec == "fp16":
        return rows * width * 2
    return rows * (width + 4 + min(OUTLIERS, width) * 6)


class Answered(NamedTuple):
    """The shape of a teacher's answers: its grid and width in the space that is asked for."""

    grid: Grid
    width: int

    @property
    def rows(self) -> int:
        """With the pooled row, which comes first."""
        return 1 + self.grid[0] * self.grid[1]

    def size(self, codec: Codec) -> int:
        """Bytes of an answer."""
        return record_bytes(codec, self.rows, self.width)


def encode(rows: Float[Tensor, "b t d"], codec: Codec) -> UInt8[Tensor, "b bytes"]:
    """Rows as records, one a sample. A row that is not finite stays so."""
    rows = rows.float()
    if codec == "fp16":
        return rows.clamp(-FP16_MAX, FP16_MAX).half().flatten(1).view(torch.uint8)
    assert rows.shape[-1] < MAX_WIDTH, "channels are numbered in 16 bits"
    place = rows.abs().topk(min(OUTLIERS, rows.shape[-1]), dim=-1).indices
    rest = rows.scatter(-1, place, 0.0)
    scale = rest.abs().amax(dim=-1, keepdim=True) / LEVELS
    steps = (rest / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    parts = (scale, rows.gather(-1, place), place.to(torch.int16), steps)
    return torch.cat([part.contiguous().flatten(1).view(torch.uint8) for part in parts], dim=1)


def decode(records: UInt8[Tensor, "b bytes"], rows: int, width: int, codec: Codec) -> Float[Tensor, "b t d"]:
    """The rows of records, in fp32, on their device."""
    b = records.shape[0]
    if codec == "fp16":
        return records.contiguous().view(torch.float16).view(b, rows, width).float()
    kept = min(OUTLIERS, width)
    sizes = [rows * 4, rows * kept * 4, rows * kept * 2, rows * width]
    # A slice begins anywhere, numbers of several bytes must not: so the short ones are copied.
    scale, values, place, steps = records.split(sizes, dim=1)
    made = steps.contiguous().view(torch.int8).view(b, rows, width).float()
    made *= scale.clone().view(torch.float32).view(b, rows, 1)
    places = place.clone().view(torch.int16).view(b, rows, kept).long()
    return made.scatter_(-1, places, values.clone().view(torch.float32).view(b, rows, kept))
