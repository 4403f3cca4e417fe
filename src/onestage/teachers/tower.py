"""What every image tower of another library is to us: normalised images to rows, raw and in the joint space.

The joint place of a row is what the model's own head says of that row alone. With a class token that is the
projection of every row (EVA, arXiv:2211.07636, sec. 2.1; UTA sec. 2.2). With a mean it is exact where nothing but an
affine map follows it. With an attention pool the row is its own only key and value, so that the answer for equal rows
is the pooled one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.looks import QueryKey
from onestage.spec import UserError
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
    prefix: int
    """Rows before those of the cells; the first of them is the class token."""

    @abstractmethod
    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        """Rows after the final norm, and the pooled row before any projection."""

    @abstractmethod
    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        """Rows in the joint space; only where `joint` is a number."""

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """Its blocks, to be watched; none where it has no row of them."""

    @abstractmethod
    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        """A block's output in the joint space, as if it were the last block's.

        Raises:
            UserError: where only the last block's has a place there.
        """

    @abstractmethod
    def attention(self) -> nn.Module | None:
        """The attention of its last block, whose first row is its class token's; None where it cannot be read."""

    @abstractmethod
    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        """What that attention compares."""


def split(output: Float[Tensor, "b n d"], prefix: int) -> Rows:
    """A block's output as pooled row and cells; without a class token the pooled row is the mean."""
    patches = output[:, prefix:]
    return Rows(output[:, 0] if prefix else patches.mean(dim=1), patches)


def no_lift(tower: Tower) -> UserError:
    """What is said where only the last block's rows have a place in the joint space."""
    return UserError(
        f"target.blocks: only the last block of {type(tower).__name__} has a place in the space shared with texts; use "
        "space: raw, or a model pooled by its class token"
    )


def alone(pool: Callable[[Tensor], Tensor], rows: Float[Tensor, "b g d"]) -> Float[Tensor, "b g k"]:
    """Each row through a pooling head as a sequence of its own."""
    b, g, d = rows.shape
    return pool(rows.reshape(b * g, 1, d)).reshape(b, g, -1)
