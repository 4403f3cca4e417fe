"""The projectors of a method's terms: trained, and averaged wherever the encoder of the target is an average.

A term's x passes its projector; its y passes the same one where the same encoder makes it, the average of it where an
average of that encoder does, and none where the target comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from onestage.encoders import Aggregation, Regressor
from onestage.objective.average import average, averaging_mode, momentum
from onestage.objective.declare import Ema, Method, Term
from onestage.roles import Encoder, Projector
from onestage.targets import Encoded
from onestage.types import Tokens


@final
class Projectors(nn.Module):
    """Built once for all terms that name them; an average is equal to its projector at first, without gradients."""

    def __init__(self, method: Method, built: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.method = method
        self.trained, self.averaged = nn.ModuleDict(), nn.ModuleDict()
        for term in method.terms.values():
            name, student = term.projector, method.input_of(term).encoder
            if name is not None and name not in self.trained:
                self.trained[name] = method.projectors[name].build(built[student].width)
        for name, role, key in self._averages():
            slow = method.projectors[name].build(built[role.of].width)
            slow.load_state_dict(self.trained[name].state_dict())
            self.averaged[key] = slow.requires_grad_(False)
        self.training_mode()

    def width(self, term: Term, encoder: Encoder) -> int:
        """How wide the rows of a term's encoder, or of an average of it, are behind the term's projector."""
        return encoder.width if term.projector is None else self.named(term.projector).width

    def named(self, name: str) -> Projector:
        """The trained projector of a name."""
        module = self.trained[name]
        assert isinstance(module, Projector)
        return module

    def seen(self, term: Term, tokens: Tokens, encoder: Encoder) -> Tokens:
        """A term's x behind its projector, which may read blocks of the encoder: then its final norm comes last."""
        if term.projector is None:
            return tokens
        found = self.trained[term.projector](tokens)
        norm = encoder.last_norm() if isinstance(self.method.projectors[term.projector], Aggregation) else None
        return found if norm is None else found._replace(rows=norm(found.rows), pooled=norm(found.pooled))

    def explained(self, term: Term, tokens: Tokens) -> Tokens:
        """A term's y behind what it passes."""
        name = target_projector(self.method, term)
        if name is None:
            return tokens
        return self.averaged[name](tokens) if name in self.averaged else self.trained[name](tokens)

    def training_mode(self) -> None:
        """Averages without drop path."""
        for _, role, key in self._averages():
            averaging_mode(self.averaged[key], role.buffers)

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Commit the averages after optimiser step `step` of `total`."""
        for name, role, key in self._averages():
            average(self.averaged[key], self.trained[name], momentum(role, step, total), role.buffers)

    def _averages(self) -> list[tuple[str, Ema, str]]:
        """The projectors that have averages: their names, the role of the encoder, and the name of the average."""
        found = {}
        for term in self.method.terms.values():
            role = self.method.encoders.get(term.target.encoder) if isinstance(term.target, Encoded) else None
            key = target_projector(self.method, term)
            if term.projector is not None and key is not None and isinstance(role, Ema):
                found[key] = (term.projector, role, key)
        return list(found.values())


def target_projector(method: Method, term: Term) -> str | None:
    """The projector that a term's y passes: `NAME` where x passes it too, `AVERAGE_NAME` for an average of it."""
    if term.projector is None or not isinstance(term.target, Encoded):
        return None
    if isinstance(method.projectors[term.projector], Regressor):
        return None  # it tells what x does not show, and y shows it
    name, student = term.target.encoder, method.input_of(term).encoder
    role = method.encoders[name]
    if isinstance(role, Ema) and role.of == student:
        return f"{name}_{term.projector}"
    return term.projector if name == student else None
