"""A code book: unit rows that stand for the rows nearest to them (VQ-KD, BEiT v2, arXiv:2208.06366, sec. 3.1).

    c(z) = argmin_k |z - e_k|,    e_k <- unit(decay e_k + (1 - decay) unit(sum of the z that chose k))

A row goes on as its code, and its gradient passes as if nothing had happened (straight through, arXiv:1711.00937).
Codes move by what their rows were, not by gradients: what a step chose is summed over all ranks, committed after it.
BEiT v2's code draws the first codes by k-means on the first batch of every rank, each by itself. Here they are drawn on
the sphere, and a code that has had next to no rows for long moves to a row that its own code stands for badly, the same
on every rank: code books that collapse are what people report of the released code.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from onestage.distributed import gather, total
from onestage.layers.normalise import unit

CANDIDATES = 256
"""Rows of a step, on each rank, that dead codes may move to."""
DEAD = 1e-3
"""A code is dead when its running share of rows is below this part of an equal share."""


class Seen(NamedTuple):
    """What a step chose: how often each code, the sum of the rows that chose it, and badly represented rows."""

    counts: Float[Tensor, " c"]
    sums: Float[Tensor, "c k"]
    far: Float[Tensor, "r k"]


@final
class CodeBook(nn.Module):
    """`count` codes of `width` values. Codes and their use are saved, and changed by `after_step` alone."""

    codes: Tensor
    usage: Tensor

    def __init__(self, count: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", unit(torch.randn(count, width)))
        self.register_buffer("usage", torch.full((count,), 1 / count))
        self.pending: list[Seen] = []

    def assign(self, rows: Float[Tensor, "b m k"]) -> Int[Tensor, "b m"]:
        """The number of the code that is nearest to each row, which has unit length."""
        return (rows.float() @ self.codes.T).argmax(dim=-1)

    def forward(self, rows: Float[Tensor, "b m k"]) -> Float[Tensor, "b m k"]:
        """The codes of unit rows, with the gradient of the rows."""
        chosen = self.assign(rows.detach())
        codes = self.codes[chosen]
        if self.training and torch.is_grad_enabled():
            self.pending.append(self._seen(rows.detach().float().flatten(0, 1), chosen.flatten()))
        return rows + (codes - rows).detach()

    def perplexity(self) -> Float[Tensor, ""]:
        """exp of the entropy of the running use: as many codes as if all that are used were used alike."""
        share = self.usage / self.usage.sum()
        return torch.special.entr(share).sum().exp()

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the codes to what chose them, and dead ones to rows that are represented badly."""
        if not self.pending:
            return
        counts = total(torch.stack([one.counts for one in self.pending]).sum(dim=0))
        sums = total(torch.stack([one.sums for one in self.pending]).sum(dim=0))
        used = (counts > 0).unsqueeze(1)
        moved = unit(self.decay * self.codes + (1 - self.decay) * unit(sums))
        self.codes.copy_(torch.where(used, moved, self.codes))
        self.usage.lerp_(counts / counts.sum(), 1 - self.decay)
        self._revive(gather(torch.cat([one.far for one in self.pending])))
        self.pending.clear()

    def after_skip(self) -> None:
        """Forget what a skipped step chose."""
        self.pending.clear()

    def _seen(self, rows: Float[Tensor, "n k"], chosen: Int[Tensor, " n"]) -> Seen:
        counts = torch.zeros_like(self.usage).index_add_(0, chosen, torch.ones_like(chosen, dtype=rows.dtype))
        sums = torch.zeros_like(self.codes).index_add_(0, chosen, rows)
        near = (rows * self.codes[chosen]).sum(dim=1)
        return Seen(counts, sums, rows[near.argsort()[:CANDIDATES]])

    def _revive(self, far: Float[Tensor, "r k"]) -> None:
        """Dead codes become rows; each starts with an equal share, so that it has time to be chosen."""
        dead = (self.usage < DEAD / len(self.usage)).nonzero().flatten()[: len(far)]
        self.codes[dead] = far[: len(dead)]
        self.usage[dead] = 1 / len(self.usage)
