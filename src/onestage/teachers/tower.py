"""What every image tower of another library is to us: normalised images to rows, raw and in the joint space.

The joint place of a row is what the model's own head says of that row alone. With a class token that is the
projection of every row (EVA, arXiv:2211.07636, sec. 2.1; UTA sec. 2.2). With a mean it is exact where nothing but an
affine map follows it. With an attention pool the row is its own only key and value, so that the answer for equal rows
is the pooled one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from onestage.teachers.resize import Interpolation
from onestage.types import Grid


class Rows(NamedTuple):
    """The pooled row of each image and its patch rows, row-major."""

    pooled: Float[Tensor, "b d"]
    patches: Float[Tensor, "b g d"]


class Pixels(NamedTuple):
    """How a model wants its images: the side of the square, how it is resized to, mean and deviation of channels."""

    size: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Tower(nn.Module, ABC):
    """A frozen image tower."""

    grid: Grid
    width: int
    """Of raw rows."""
    joint: int | None
    """Width of the joint space; None where it has none, or no exact place in it for each row."""
    lack: str
    """Why it has no joint rows."""

    @abstractmethod
    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        """Rows after the final norm, and the pooled row before any projection."""

    @abstractmethod
    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        """Rows in the joint space; only where `joint` is a number."""


def alone(pool: Callable[[Tensor], Tensor], rows: Float[Tensor, "b g d"]) -> Float[Tensor, "b g k"]:
    """Each row through a pooling head as a sequence of its own."""
    b, g, d = rows.shape
    return pool(rows.reshape(b * g, 1, d)).reshape(b, g, -1)
