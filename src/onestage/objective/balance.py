"""How much each term pulls at the encoder: gradient shares and cosines, and weights that follow them.

Each term reads the encoder's output through an identity of its own, whose gradient is that term's alone: the share of
every term is known after the one backward pass that training does anyway, and the total gradient is unchanged.

M3I speaks of weights that follow the ratio of the terms' gradients; its formula is not published. `Balance` is the
plain reading of it: every term's gradient is brought to the size of a reference term's, by moving averages.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Annotated, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.spec import spec
from onestage.types import Tokens


@final
@spec
class Balance:
    """Weights that bring the gradient of every term, at the encoder's output, to the size of one term's."""

    reference: str
    """The term whose weight stays as it is."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the moving averages of gradient sizes."""
    least: Annotated[float, Field(gt=0)] = 0.01
    """Limits of the factor on a term's own weight."""
    most: Annotated[float, Field(gt=0)] = 100.0


@final
class Taps:
    """Identities between an encoder's output and the terms, and what flows back through them."""

    def __init__(self, terms: dict[str, str]) -> None:
        self._input = terms
        self._tapped: dict[str, tuple[Tensor, Tensor]] = {}
        self._flowed: dict[str, dict[int, Tensor]] = {}
        self._products: dict[tuple[str, str], Tensor] = {}

    def tap(self, term: str, tokens: Tokens) -> Tokens:
        """The same tokens for one term; the whole output is tapped, since heads read rows or the pooled row."""
        if not (torch.is_grad_enabled() and tokens.rows.requires_grad):
            return tokens
        rows, pooled = (tensor.view_as(tensor) for tensor in (tokens.rows, tokens.pooled))
        self._tapped[term], self._flowed[term] = (rows, pooled), {}
        for place, tensor in enumerate((rows, pooled)):
            tensor.register_hook(self._keep(term, place))
        return tokens._replace(rows=rows, pooled=pooled)

    @torch.no_grad()
    def settle(self) -> None:
        """After a backward pass: add the inner products of what flowed, and forget it."""
        flat = {term: self._flat(term, flowed) for term, flowed in self._flowed.items() if flowed}
        pairs = [(term, term) for term in flat]
        pairs += [pair for pair in combinations(flat, 2) if self._input[pair[0]] == self._input[pair[1]]]
        for one, other in pairs:
            product = flat[one] @ flat[other]
            self._products[one, other] = self._products.get((one, other), torch.zeros_like(product)) + product
        self._flowed.clear()
        self._tapped.clear()

    def read(self) -> dict[tuple[str, str], Tensor]:
        """Inner products of the terms' gradients since the last reading, still on the device."""
        products, self._products = self._products, {}
        return products

    def _flat(self, term: str, flowed: dict[int, Tensor]) -> Tensor:
        """The gradient at the rows and then at the pooled row, whichever came first; zero where none came."""
        whole = enumerate(self._tapped[term])
        return torch.cat([flowed.get(place, torch.zeros_like(tensor)).float().flatten() for place, tensor in whole])

    def _keep(self, term: str, place: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            self._flowed[term][place] = gradient.detach()

        return keep


def shares(products: dict[tuple[str, str], Tensor]) -> dict[str, Tensor]:
    """`share/TERM`: a term's part in the sum of gradient norms; `cosine/TERM/TERM`: the angle between two terms."""
    norms = {one: product.sqrt() for (one, other), product in products.items() if one == other}
    if len(norms) < 2:
        return {}
    total = torch.stack(list(norms.values())).sum().clamp_min(torch.finfo(torch.float32).tiny)
    found = {f"share/{term}": norm / total for term, norm in norms.items()}
    for (one, other), product in products.items():
        if one != other:
            found[f"cosine/{one}/{other}"] = product / (norms[one] * norms[other]).clamp_min(1e-30)
    return found


@final
class Weights(nn.Module):
    """The factor on each term's weight; 1 for all unless a balance is declared. Saved with the run."""

    factor: Tensor
    size: Tensor

    def __init__(self, terms: tuple[str, ...], weights: dict[str, float], balance: Balance | None) -> None:
        super().__init__()
        self.terms, self.weights, self.balance = terms, weights, balance
        if balance is not None:
            self.register_buffer("factor", torch.ones(len(terms)))
            self.register_buffer("size", torch.zeros(len(terms)))

    def total(self, losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum of the terms."""
        weighted = torch.stack([self.weights[term] * losses[term] for term in self.terms])
        return (weighted if self.balance is None else self.factor * weighted).sum()

    @torch.no_grad()
    def after_step(self, products: dict[tuple[str, str], Tensor]) -> None:
        """Follow the gradients of the step; terms that had none keep their factor."""
        if self.balance is None or any((term, term) not in products for term in self.terms):
            return
        norms = torch.stack([products[term, term].sqrt() for term in self.terms])
        own = norms / (self.factor * norms.new_tensor([self.weights[term] for term in self.terms])).clamp_min(1e-30)
        first = bool((self.size == 0).all())
        self.size.copy_(own if first else self.size.lerp(own, 1 - self.balance.momentum))
        wanted = self.size[self.terms.index(self.balance.reference)] / self.size.clamp_min(1e-30)
        self.factor.copy_(wanted.clamp(self.balance.least, self.balance.most))
