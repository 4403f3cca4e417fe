"""A view as the grid of patches that a target describes."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from onestage.layers.normalise import Normalise
from onestage.spec import UserError
from onestage.types import Grid, Tokens, View


def pixels_of(
    kind: str, source: View | Tokens | Int[Tensor, " b"], grid: Grid, patch: int, normalise: Normalise, tubelet: int = 1
) -> Float[Tensor, "b c h w"]:
    """The view's normalised pixels, in fp32.

    Args:
        kind: of the target, for the message.
        tubelet: how many frames of a clip make one row of the grid's squares.

    Raises:
        UserError: when the view is not a grid of such patches.
    """
    assert isinstance(source, View), f"a {kind} target is made of a view"
    size = source.pixels.shape[-2:]
    if tuple(size) != (grid[0] * patch * tubelet, grid[1] * patch):
        raise UserError(
            f"a {kind} target of {grid[0]} x {grid[1]} patches of {patch} px needs a view of "
            f"{grid[0] * patch * tubelet} x {grid[1] * patch} px, got {size[0]} x {size[1]} px"
        )
    return normalise(source.pixels).float()
