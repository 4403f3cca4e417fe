"""How a row of the table is declared: parts, inputs, terms, encoder roles, and the method that joins them.

A declaration is checked when it is made: names, what a predictor can reach, and whether the row would collapse.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, final

from pydantic import Discriminator

from onestage.likelihood import LikelihoodSpec
from onestage.predictors import PredictorSpec
from onestage.roles import Space
from onestage.spec import UserError, spec, suggest
from onestage.targets import Encoded, Table, TargetSpec
from onestage.types import HideMode
from onestage.views import HideSpec, ViewSpec


@final
@spec
class Part:
    """One part of an input: a view (or `text`), what it hides, and how hidden cells are treated."""

    of: str
    hide: HideSpec | None = None
    mode: HideMode = "full"


@final
@spec
class Input:
    """What one encoder sees at once."""

    encoder: str
    parts: dict[str, Part]


@final
@spec
class Term:
    """One line of the sum: input x explains target y."""

    x: str
    y: str
    target: TargetSpec
    predictor: PredictorSpec
    likelihood: LikelihoodSpec
    weight: float = 1.0


@final
@spec
class Trained:
    """An encoder that the objective trains."""

    kind: Literal["trained"] = "trained"


@final
@spec
class Frozen:
    """A teacher: given by reference, never trained, kept outside the objective."""

    kind: Literal["frozen"] = "frozen"


@final
@spec
class Ema:
    """A running average of a trained encoder (backbone and projector, never a predictor)."""

    of: str
    momentum: float = 0.996
    end: float = 1.0
    """The momentum runs from `momentum` to `end` along a cosine; equal values keep it constant."""
    when: Literal["before", "after"] = "after"
    """Updated before the forward pass (MoCo, SiameseIM) or after the optimiser's step (BYOL, DINO, data2vec)."""
    buffers: Literal["copy", "average"] = "copy"
    kind: Literal["ema"] = "ema"


EncoderRole = Annotated[Trained | Frozen | Ema, Discriminator("kind")]


@final
@spec
class Method:
    """A row of the table: named views, encoders, inputs and terms.

    Raises:
        UserError: when a name leads nowhere, a predictor cannot reach its rows, or the row would collapse.
    """

    name: str
    cite: str
    encoders: dict[str, EncoderRole]
    inputs: dict[str, Input]
    terms: dict[str, Term]
    views: dict[str, ViewSpec]

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            _check_names(self, name, term)
            _check_reach(self, name, term)
            if regulariser(self, term) == "none":
                raise UserError(
                    f"terms.{name}: the row would collapse. Its target comes from the trained encoder "
                    f"'{_encoder_of(term)}' under a Gaussian, so a constant is a perfect answer. "
                    "Use a frozen or EMA encoder as the target, or a Boltzmann likelihood with negatives."
                )
        for name, role in self.encoders.items():
            if isinstance(role, Ema) and not isinstance(self.encoders.get(role.of), Trained):
                raise UserError(f"encoders.{name}.of: '{role.of}' is not a trained encoder of this method")

    def named(self, role: type[Trained | Frozen | Ema]) -> list[str]:
        """The names of the encoders in a role."""
        return [name for name, value in self.encoders.items() if isinstance(value, role)]

    @property
    def needs_texts(self) -> bool:
        """Whether samples must carry texts."""
        return any(term.y == "text" for term in self.terms.values())

    @property
    def needs_labels(self) -> bool:
        """Whether samples must carry labels."""
        return any(term.y == "label" for term in self.terms.values())

    @property
    def joint(self) -> str | None:
        """The term whose predictor leads into the space that images and texts share, if there is one."""
        for name, term in self.terms.items():
            target = term.target
            if isinstance(target, Encoded) and (term.y == "text" or self._frozen_joint(target)):
                return name
        return None

    def _frozen_joint(self, target: Encoded) -> bool:
        return isinstance(self.encoders[target.encoder], Frozen) and target.space == "joint"


def regulariser(method: Method, term: Term) -> str:
    """What keeps the targets from collapsing: the regulariser column of M3I's table; `none` must be refused."""
    if term.likelihood.kind == "boltzmann":
        return "negative categories" if isinstance(term.target, Table) else "negatives"
    if isinstance(term.target, Encoded):
        trained = isinstance(method.encoders[term.target.encoder], Trained)
        return "none" if trained else "stop gradient"
    return "none" if isinstance(term.target, Table) else "-"


def _encoder_of(term: Term) -> str:
    return term.target.encoder if isinstance(term.target, Encoded) else "table"


def _check_names(method: Method, name: str, term: Term) -> None:
    def known(path: str, word: str, names: list[str]) -> None:
        if word not in names:
            raise UserError(f"{path}: there is no '{word}' here{suggest(word, names)} (known: {', '.join(names)})")

    sources = [*method.views, "text"]
    known(f"terms.{name}.x", term.x, list(method.inputs))
    known(f"terms.{name}.y", term.y, [*sources, "label"])
    asked = method.inputs[term.x]
    known(f"inputs.{term.x}.encoder", asked.encoder, method.named(Trained))
    for part, value in asked.parts.items():
        known(f"inputs.{term.x}.parts.{part}.of", value.of, sources)
        if (value.hide is None) != (value.mode == "full"):
            raise UserError(f"inputs.{term.x}.parts.{part}: hide and mode go together (drop or replace with a hide)")
    if isinstance(term.target, Encoded):
        known(f"terms.{name}.target.encoder", term.target.encoder, list(method.encoders))
    if isinstance(term.target, Table) != (term.y == "label"):
        raise UserError(f"terms.{name}: y: label and target: table go together")


def _check_reach(method: Method, name: str, term: Term) -> None:
    """A predictor that reads the encoder's own rows cannot answer for rows that were dropped."""
    part = image_part(method.inputs[term.x])
    rows = "pooled" if isinstance(term.target, Table) else term.target.rows
    if part.hide is None and rows == "hidden":
        raise UserError(f"terms.{name}.target.rows: hidden, but input '{term.x}' hides nothing")
    if part.mode == "drop" and rows in {"hidden", "all", "all+cls"} and term.predictor.reaches == "rows":
        raise UserError(
            f"terms.{name}: predictor {term.predictor.kind} reads the encoder's own rows, but input '{term.x}' drops "
            f"some of the rows '{rows}'. Use a decoder, mode: replace, or rows: kept."
        )


def image_part(asked: Input) -> Part:
    """The part of an input that target rows refer to: its first."""
    return next(iter(asked.parts.values()))


class Ask(NamedTuple):
    """What a frozen teacher has to answer for a step."""

    encoder: str
    view: str
    space: Space


def asks(method: Method) -> tuple[Ask, ...]:
    """Every distinct (teacher, view, space) that the terms need."""
    frozen = method.named(Frozen)
    wanted = {
        Ask(term.target.encoder, term.y, term.target.space)
        for term in method.terms.values()
        if isinstance(term.target, Encoded) and term.target.encoder in frozen
    }
    return tuple(sorted(wanted))
