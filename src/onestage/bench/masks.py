"""`onestage bench masks`: how often each cell is hidden, by the kind of mask (UTA, arXiv:2405.19009, figure 3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
from pydantic import Field

from onestage.report import coverage_figure
from onestage.spec import UserError, spec
from onestage.views import Block, BlockReversed, Random, coverage

FORMATS = (".svg", ".png")


@final
@spec
class MasksBench:
    """How often each cell is hidden by random, block-wise and reversed block-wise masks: a figure, and the numbers."""

    out: str = "masks.svg"
    """New file of the figure, .svg or .png."""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the cells that is hidden."""
    side: Annotated[int, Field(ge=2)] = 16
    """Of the grid, in cells: 16 for 224 pixels and patches of 14."""
    draws: Annotated[int, Field(ge=1)] = 10_000
    """Masks of each kind."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the masks."""

    def run(self) -> Iterator[dict[str, Any]]:
        """One line a kind; the figure is written after the last.

        Raises:
            UserError: when the figure exists, its folder does not, or its format is unknown.
        """
        path = Path(self.out)
        _usable(path)
        kinds = {
            "random": Random(ratio=self.ratio),
            "block": Block(ratio=self.ratio),
            "block_reversed": BlockReversed(ratio=self.ratio),
        }
        maps = {}
        for kind, hide in kinds.items():
            maps[kind] = coverage(hide, (self.side, self.side), self.draws, self.seed)
            yield {"case": "masks", "kind": kind, "ratio": self.ratio, "draws": self.draws} | _figures(maps[kind])
        coverage_figure(maps, path)


def _usable(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise UserError(f"bench masks: --out {path} is not a figure; give a name that ends in {' or '.join(FORMATS)}")
    if path.exists():
        raise UserError(f"{path}: exists already; nothing is overwritten. Choose another name with --out.")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first, or choose another name with --out.")


def _figures(found: np.ndarray) -> dict[str, Any]:
    """The extremes, what lies between centre and corners, and the whole map by rows."""
    middle = slice((len(found) - 1) // 2, len(found) // 2 + 1)
    return {
        "mean": round(float(found.mean()), 4),
        "least": round(float(found.min()), 4),
        "greatest": round(float(found.max()), 4),
        "centre": round(float(found[middle, middle].mean()), 4),
        "corners": round(float(found[:: len(found) - 1, :: len(found) - 1].mean()), 4),
        "probability": found.round(4).tolist(),
    }
