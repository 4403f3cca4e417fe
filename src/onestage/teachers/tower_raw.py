"""An image tower whose own rows are the space shared with texts: what LiT (arXiv:2111.07991) trains texts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.looks import QueryKey
from onestage.teachers.tower import Rows, Tower, split


@final
class RawTower(Tower):
    """Another tower without its projection."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.grid, self.width, self.prefix = tower.grid, tower.width, tower.prefix
        self.joint, self.lack = tower.width, ""

    def raw(self, images: Float[Tensor, "b c s s"]) -> Rows:
        return self.tower.raw(images)

    def projected(self, images: Float[Tensor, "b c s s"]) -> Rows:
        return self.tower.raw(images)

    def blocks(self) -> Sequence[nn.Module]:
        return self.tower.blocks()

    def lifted(self, output: Float[Tensor, "b n d"]) -> Rows:
        return split(output, self.prefix)

    def attention(self) -> nn.Module | None:
        return self.tower.attention()

    def query_key(self, attention: Any, rows: Float[Tensor, "b n d"], rope: Tensor | None) -> QueryKey:
        return self.tower.query_key(attention, rows, rope)
