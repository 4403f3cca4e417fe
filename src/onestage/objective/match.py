"""Which of a target's cells a guessed row explains, where that is decided by what the rows are like.

DenseCL (arXiv:2011.09157, eq. 5) has no geometry: cell i of one view explains the cell of the other view

    c(i) = argmax over j of cosine(f_i, f'_j),

f and f' being the rows of the backbones, before any projector.
"""

from __future__ import annotations

import torch

from onestage.layers.normalise import unit
from onestage.likelihood.average import full_precision
from onestage.ops import at_least_fp32, select
from onestage.types import Tokens, Wanted


@torch.no_grad()
def nearest(seen: Tokens, other: Tokens, wanted: Wanted) -> Wanted:
    """Every wanted cell of what was seen, replaced by the cell of `other` whose row is the most alike to its row."""
    with full_precision(seen.rows):
        ours, theirs = unit(at_least_fp32(select(seen, wanted.cell))), unit(at_least_fp32(other.rows))
        best = (ours @ theirs.transpose(1, 2)).argmax(dim=2)
    return wanted._replace(cell=other.place.cell.gather(1, best))
