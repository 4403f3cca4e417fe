"""What a row of the table is declared of: parts, inputs, terms, and the roles of encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Literal, final

from pydantic import Discriminator, Field

from onestage.likelihood import LikelihoodSpec, RegulariserSpec
from onestage.predictors import Drawn, PredictorSpec
from onestage.spec import UserError, spec
from onestage.targets import Encoded, Pixels, TargetSpec
from onestage.types import HideMode
from onestage.views import DrawnSpec, HideSpec


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
    """What one encoder sees at once.

    With a `mix`, it has two parts: on each sample's grid, the cells that the mix hides of the first part show the
    second part of the partner, sample i xor 1 of the global batch. Terms name a part of it as `input/part`, and then
    see only that part's rows, each sample its own: nothing else has to know of partners.
    """

    encoder: str
    parts: dict[str, Part]
    mix: DrawnSpec | None = None
    attention: Literal["all", "own"] = "all"
    """In a mix: whether rows attend to both images, or only to rows of their own (MixMIM, arXiv:2205.13137)."""


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
    projector: str | None = None
    """The projector that x passes, and y too where the same encoder or an average of it encodes y."""
    shares: str | None = None
    """Another term, whose predictor and likelihood, with what that remembers, it uses too."""
    match: Literal["place", "nearest"] = "place"
    """Which of the target's cells a guessed row explains: the wanted one, or the one whose row before any projector is
    the most alike to the row that is guessed from (DenseCL, arXiv:2011.09157, eq. 5)."""
    regulariser: RegulariserSpec | None = None
    """What is added to keep targets apart where the likelihood has no negatives."""
    dropped: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of samples, drawn afresh in each step, that the term leaves out: teacher dropping, where several
    teachers would else be learned by the easiest one. Of the terms with a share, one at least stays for each sample."""


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
    """A running average of a trained encoder (backbone and projectors, never a predictor)."""

    of: str
    momentum: float = 0.996
    end: float = 1.0
    """The momentum runs from `momentum` to `end`; equal values keep it constant."""
    path: Literal["cosine", "line"] = "cosine"
    over: Annotated[float, Field(ge=1)] = 1.0
    """How many lengths of the run the path takes: one of 1.25 does not reach its end (MSN)."""
    when: Literal["before", "after"] = "after"
    """Updated before the forward pass (MoCo, SiameseIM) or after the optimiser's step (BYOL, DINO, data2vec)."""
    buffers: Literal["copy", "average", "own"] = "copy"
    """`own`: its batch norms normalise by the batch and keep statistics of their own (BYOL, arXiv:2006.07733)."""
    kind: Literal["ema"] = "ema"


EncoderRole = Annotated[Trained | Frozen | Ema, Discriminator("kind")]


def check_scores(name: str, term: Term, frozen: Sequence[str]) -> None:
    """Scores of categories are those of a frozen encoder, and have a likelihood of their own.

    Raises:
        UserError: when they are not.
    """
    scores = term.target.encoder if isinstance(term.target, Encoded) and term.target.space == "categories" else None
    if (scores is not None) != (term.likelihood.kind == "scores"):
        raise UserError(f"terms.{name}: target.space: categories and likelihood: scores go together")
    if scores is not None and scores not in frozen:
        raise UserError(f"terms.{name}: target.space: categories is for a frozen encoder, which has learned them")


def check_drawn(terms: Mapping[str, Term], name: str, frozen: Sequence[str]) -> None:
    """A drawn picture comes from an earlier term of all pixels as they are, and a frozen encoder sees it.

    Raises:
        UserError: when it does not.
    """
    term = terms[name]
    predictor, target = term.predictor, term.target
    if not isinstance(predictor, Drawn):
        return
    of = dict(takewhile(lambda item: item[0] != name, terms.items())).get(predictor.of)
    pixels = of.target if of is not None else None
    if not (isinstance(pixels, Pixels) and (pixels.rows, pixels.norm) == ("all", "none")):
        raise UserError(
            f"terms.{name}.predictor.of: '{predictor.of}' is no term before it with target: {{kind: pixels, rows: all, "
            "norm: none}"
        )
    plain = (
        isinstance(target, Encoded)
        and target.encoder in frozen
        and target.space != "codes"
        and (target.norm, target.fit) == ("none", "exact")
        and len(target.blocks) < 2
    )
    if not plain or term.projector:
        raise UserError(
            f"terms.{name}: predictor drawn explains rows of one block of a frozen encoder, as they are and without a "
            "projector"
        )
