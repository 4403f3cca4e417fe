"""Losses that compare the samples of a batch, for a batch that is represented in pieces, with the exact gradient.

With guesses and targets r_p(theta) of piece p and the loss L(r_1, ..., r_P; phi) of the whole batch,

    dL/dtheta = sum_p (dL/dr_p) (dr_p/dtheta),

so the slopes dL/dr_p are found once, from rows that were kept without their graphs, and each piece is represented
again to carry its slopes on (the caching of gradients of Gao et al., arXiv:2101.06983).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onestage.objective import Objective
from onestage.types import Blended, Losses, Represented, Target


class Slope(NamedTuple):
    """What the second pass of a piece carries on: dL/d(tensor) by name, for its guesses and target rows; and in the
    last piece also for rows that all pieces share and for parameters that the losses use directly."""

    gradients: dict[str, Tensor]
    parameters: dict[str, Tensor]

    def wanted(self, represented: Represented) -> dict[str, Tensor]:
        """The tensors of a representation, and the parameters, that carry gradients and have a slope."""
        found = differentiable(represented) | self.parameters
        return {name: tensor for name, tensor in found.items() if tensor.requires_grad and name in self.gradients}


def looks_at_batch(objective: Objective) -> bool:
    """Whether any term's likelihood or regulariser compares the samples of the batch."""
    likelihoods = [objective.likelihood(name).scope for name in objective.method.terms]
    return "batch" in [*likelihoods, *(objective.regulariser(name).scope for name in objective.regularisers)]


def weighs(represented: Represented) -> bool:
    """Whether any target counts its rows by weights, whose sum over the batch is the normaliser."""
    return any(target.weight is not None for target in represented.targets.values())


def slopes(objective: Objective, kept: list[Represented]) -> tuple[Losses, list[Slope]]:
    """The losses of a batch whose pieces were represented without gradients, and a slope for each piece."""
    whole = join(kept)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in differentiable(whole).items()}
    losses = objective.score(replace(whole, leaves))
    named = {f"parameter/{name}": p for name, p in objective.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(losses.total, [*leaves.values(), *named.values()], allow_unused=True)
    found = dict(zip([*leaves, *named], gradients, strict=True))
    pieces: list[dict[str, Tensor]] = [{} for _ in kept]
    for name, gradient in found.items():
        if gradient is None:
            continue
        if name in named or is_shared(leaves[name]):
            pieces[-1][name] = gradient
        else:
            for piece, share in zip(pieces, gradient.chunk(len(kept)), strict=True):
                piece[name] = share
    used: dict[str, Tensor] = {name: parameter for name, parameter in named.items() if found[name] is not None}
    return losses, [Slope(piece, used if piece is pieces[-1] else {}) for piece in pieces]


def differentiable(represented: Represented) -> dict[str, Tensor]:
    """The guesses, costs and target rows by name."""
    guesses = {f"guess/{name}": guess for name, guess in represented.guesses.items()}
    guesses |= {f"cost/{name}": cost for name, cost in represented.costs.items()}
    return guesses | {f"target/{name}": target.rows for name, target in represented.targets.items()}


def replace(represented: Represented, tensors: dict[str, Tensor]) -> Represented:
    """The same with other guesses and target rows."""
    return represented._replace(
        guesses={name: tensors[f"guess/{name}"] for name in represented.guesses},
        costs={name: tensors[f"cost/{name}"] for name in represented.costs},
        targets={name: t._replace(rows=tensors[f"target/{name}"]) for name, t in represented.targets.items()},
    )


def join(pieces: list[Represented]) -> Represented:
    """Pieces of a batch as one."""
    first = pieces[0]
    return first._replace(
        guesses={name: torch.cat([piece.guesses[name] for piece in pieces]) for name in first.guesses},
        costs={name: torch.cat([piece.costs[name] for piece in pieces]) for name in first.costs},
        targets={name: _join([piece.targets[name] for piece in pieces]) for name in first.targets},
    )


def is_shared(rows: Tensor) -> bool:
    """Whether target rows are a table for all samples, of shape (classes, k)."""
    return rows.ndim == 2


def _join(targets: list[Target]) -> Target:
    rows = targets[0].rows if is_shared(targets[0].rows) else torch.cat([target.rows for target in targets])
    identities = [target.identity for target in targets if target.identity is not None]
    weights = [target.weight for target in targets if target.weight is not None]
    blends = [target.blend for target in targets if target.blend is not None]
    wholes = [target.whole for target in targets if target.whole is not None]
    return targets[0]._replace(
        rows=rows,
        identity=torch.cat(identities) if identities else None,
        weight=torch.cat(weights) if weights else None,
        whole=torch.cat(wholes) if wholes else None,
        blend=Blended(*map(torch.cat, zip(*blends, strict=True))) if blends else None,
    )
