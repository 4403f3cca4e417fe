"""Two images in one: a sample's first part and its partner's second part, mixed cell by cell and encoded in one pass.

MixMIM (arXiv:2205.13137, section 3.2) and M3I (arXiv:2211.09807, figure 2). The partner of sample i is i xor 1 of the
global batch, so that a loss does not depend on how the batch is cut. This is the one place that knows of partners: what
it hands on are the rows of each sample's own image, wherever that was encoded.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from onestage.ops import gather_rows, place_of, shown, withheld
from onestage.spec import UserError
from onestage.types import Geometry, Grid, Tokens, View


def partner(values: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "b *rest"]:
    """The values of each sample's partner.

    Raises:
        UserError: when a sample has none.
    """
    if values.shape[0] % 2:
        raise UserError(f"a mix needs partners: the batch on one device must be even, not {values.shape[0]}")
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def mix(first: View, second: View, taken: Bool[Tensor, "b g"], grid: Grid) -> View:
    """The first view with the partner's second view in the cells that are taken; the geometry is the first's."""
    patch = first.pixels.shape[-1] // grid[1]
    cells = taken.unflatten(1, grid).repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)
    return View(torch.where(cells.unsqueeze(1), partner(second.pixels), first.pixels), first.geometry)


def hidden_of(taken: Bool[Tensor, "b g"], slot: int) -> Bool[Tensor, "b g"]:
    """The cells of each sample's own part that the mix does not show."""
    return taken if slot == 0 else ~partner(taken)


def own(tokens: Tokens, taken: Bool[Tensor, "b g"], count: int, slot: int, geometry: Geometry) -> Tokens:
    """Of the tokens of mixed images, each sample's own rows; the pooled row is their mean, since the class token has
    seen both images.

    Args:
        taken: the cells that show the second part; `count` of them in each image.
        slot: 0 for the first part, 1 for the second, which is encoded with the partner.
        geometry: of that part's view.
    """
    cells = shown(taken, taken.shape[1] - count) if slot == 0 else withheld(taken, count)
    rows = gather_rows(tokens.rows, cells)
    if slot == 1:
        rows, cells = partner(rows), partner(cells)
    place = place_of(cells)._replace(owner=cells.new_full(cells.shape, slot))
    return Tokens(rows, rows.mean(dim=1), place, tokens.grid, geometry)
