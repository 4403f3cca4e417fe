"""Pure tensor functions that several rooms need."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from onestage.types import POOLED, Geometry, Grid, Place, Tokens


def patchify(images: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b g p"]:
    """Patches row by row, each flattened as (row, column, channel), channel last (MAE's order)."""
    b, c, h, w = images.shape
    grid = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def patchify_tubes(clips: Float[Tensor, "b c f s"], patch: int, tubelet: int) -> Float[Tensor, "b g p"]:
    """Patches of `tubelet` frames after one another, frame by frame, each flattened as (frame, row, column, channel).

    Args:
        clips: frames of s x s pixels, one below another.
    """
    b, c, height, side = clips.shape
    cells, times = side // patch, height // side // tubelet
    grid = clips.reshape(b, c, times, tubelet, cells, patch, cells, patch)
    return grid.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, times * cells**2, tubelet * patch**2 * c)


def tubes(clips: Float[Tensor, "b c f s"], tubelet: int) -> Float[Tensor, "b d h s"]:
    """Frames of s x s pixels one below another, with those of every tubelet as channels of one picture: a kernel over
    them is a kernel over pixels and time. Channels are ordered (channel, frame), as weights of such a kernel are."""
    b, c, height, side = clips.shape
    times = height // side // tubelet
    return clips.reshape(b, c, times, tubelet, side, side).transpose(2, 3).reshape(b, c * tubelet, times * side, side)


def unpatchify(patches: Float[Tensor, "b g p"], patch: int, grid: Grid) -> Float[Tensor, "b c h w"]:
    """The inverse of `patchify`."""
    b, _, p = patches.shape
    blocks = patches.reshape(b, grid[0], grid[1], patch, patch, p // patch**2)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(b, p // patch**2, grid[0] * patch, grid[1] * patch)


def gather_rows(rows: Float[Tensor, "b n d"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """Rows by number, for each sample its own."""
    return rows.gather(1, index.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def select(tokens: Tokens, cells: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """The rows of the given cells; `POOLED` selects the pooled row.

    Rows may stand in any order: the row of each cell is looked up in a table of all cells. Every cell asked for
    must be among the rows; for one that is not, the first row is returned.
    """
    count = tokens.grid[0] * tokens.grid[1]
    place = tokens.place.cell
    table = place.new_zeros(place.shape[0], count + 1)
    slots = torch.where(place == POOLED, count, place)
    table.scatter_(1, slots, torch.arange(place.shape[1], device=place.device).expand_as(place))
    found = gather_rows(tokens.rows, table.gather(1, cells.clamp_min(0)))
    return torch.where((cells == POOLED).unsqueeze(-1), tokens.pooled.unsqueeze(1), found)


def block_of(tokens: Tokens, number: int) -> Tokens:
    """The tokens that block `number` put out, counted from the last one, 1; of a shallower network those of its first.

    Raises:
        ValueError: when the tokens hold no outputs of blocks.
    """
    if not tokens.layers:
        raise ValueError("outputs of blocks are wanted, but these tokens hold none")
    layer = tokens.layers[-min(number, len(tokens.layers))]
    return tokens._replace(rows=layer.rows, pooled=layer.pooled, layers=())


def shown(hidden: Bool[Tensor, "b g"], count: int) -> Int[Tensor, "b n"]:
    """The `count` cells of each sample that are not hidden, ascending."""
    return hidden.int().argsort(dim=1, stable=True)[:, :count]


def withheld(hidden: Bool[Tensor, "b g"], count: int) -> Int[Tensor, "b n"]:
    """The `count` hidden cells of each sample, ascending."""
    return shown(~hidden, count)


def place_of(cells: Int[Tensor, "b n"], modality: int = 0) -> Place:
    """The place of rows of one frame and one owner."""
    zero = torch.zeros_like(cells)
    return Place(cell=cells, frame=zero, owner=zero, modality=zero + modality)


def is_word(ids: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """True at every place of a text, False behind its end. Places are filled up with 0, which is a word's number too
    (CLIP's `!`), but never that of a text's last one."""
    return (ids != 0).int().flip(1).cumsum(1).flip(1) > 0


def sincos(positions: Float[Tensor, "*b 2"], width: int) -> Float[Tensor, "*b d"]:
    """Sine-cosine encoding of (row, column), in cells: half of the width encodes the column, then the row, as MAE."""
    omega = 10000 ** -(torch.arange(width // 4, dtype=torch.float64, device=positions.device) / (width // 4))
    row, column = (positions.double()[..., axis, None] * omega for axis in (0, 1))
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=-1).float()


def sincos_2d(width: int, grid: Grid) -> Float[Tensor, "g d"]:
    """The encoding of every cell of a grid: MAE's fixed positions."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]).float(), torch.arange(grid[1]).float(), indexing="ij")
    return sincos(torch.stack([rows.flatten(), columns.flatten()], dim=1), width)


def sines(width: int, count: int) -> Float[Tensor, "g d"]:
    """The encoding of every cell by its number alone: sines and cosines take turns (arXiv:1706.03762, sec. 3.5)."""
    omega = 10000 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * omega
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def positions_of(cells: Int[Tensor, "b m"], grid: Grid, width: int) -> Float[Tensor, "b m d"]:
    """The same encoding of single cells."""
    return sincos(torch.stack([cells // grid[1], cells % grid[1]], dim=-1).float(), width)


def relative_cells(
    seen: Geometry, wanted: Geometry, cells: Int[Tensor, "b m"], seen_grid: Grid, wanted_grid: Grid
) -> Float[Tensor, "b m 2"]:
    """Where cells of one view lie in another view's grid, as (row, column) of their centres in its cells.

    A centre goes from the wanted view to the unflipped source and from there into the view that was seen. Equal views
    give the cells themselves; a pooled row lies at the view's centre.
    """
    row, column = (cells // wanted_grid[1] + 0.5) / wanted_grid[0], (cells % wanted_grid[1] + 0.5) / wanted_grid[1]
    pooled = cells == POOLED
    row, column = row.masked_fill(pooled, 0.5), column.masked_fill(pooled, 0.5)
    column = torch.where(wanted.flip.unsqueeze(1), 1 - column, column)
    top, left, height, width = (side.unsqueeze(1) for side in wanted.box.unbind(dim=1))
    y, x = top + row * height, left + column * width
    top, left, height, width = (side.unsqueeze(1) for side in seen.box.unbind(dim=1))
    row, column = (y - top) / height, (x - left) / width
    column = torch.where(seen.flip.unsqueeze(1), 1 - column, column)
    return torch.stack([row * seen_grid[0] - 0.5, column * seen_grid[1] - 0.5], dim=-1)


def at_least_fp32(rows: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Rows as fp32, or as fp64 where they are; losses are computed so."""
    return rows if rows.dtype == torch.float64 else rows.float()


def layer_normalise(rows: Float[Tensor, "*b d"], eps: float = 1e-5) -> Float[Tensor, "*b d"]:
    """Each row to mean 0 and (biased) variance 1, in fp32: the whitening of FD, data2vec and SiameseIM."""
    rows = at_least_fp32(rows)
    return torch.nn.functional.layer_norm(rows, rows.shape[-1:], eps=eps)
