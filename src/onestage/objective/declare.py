"""How a row of the table is declared: the method that joins views, encoders, inputs and terms.

A declaration is checked when it is made: names, what a predictor can reach, and whether the row would collapse.
"""

from __future__ import annotations

from typing import final

from pydantic import Field

from onestage.encoders import Codes, Mlp, ProjectorSpec, Regressor
from onestage.likelihood import LikelihoodSpec
from onestage.objective.balance import Balance
from onestage.objective.terms import Ema, EncoderRole, Frozen, Input, Part, Term, Trained, check_drawn, check_scores
from onestage.predictors import Drawn, PredictorSpec
from onestage.spec import UserError, spec, suggest
from onestage.targets import Encoded, Spelled, Table
from onestage.views import Attentive, Sampled, SomeWords, ViewSpec


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
    projectors: dict[str, ProjectorSpec] = Field(default_factory=dict)
    """What terms name as their projector."""
    balance: Balance | None = None
    """Empty: the weights of the terms stay as they are."""

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            _check_names(self, name, term)
            _check_reach(self, name, term)
            _check_match(self, name, term)
            check_drawn(self.terms, name, self.named(Frozen))
            if regulariser(self, term) == "none":
                raise UserError(
                    f"terms.{name}: the row would collapse. Its target comes from the trained encoder "
                    f"'{_encoder_of(term)}' under a Gaussian, so a constant is a perfect answer. "
                    "Use a frozen or EMA encoder as the target, or a Boltzmann likelihood with negatives."
                )
        _check_projectors(self)
        for name, role in self.encoders.items():
            if isinstance(role, Ema) and not isinstance(self.encoders.get(role.of), Trained):
                raise UserError(f"encoders.{name}.of: '{role.of}' is not a trained encoder of this method")
        if self.balance is not None and self.balance.reference not in self.terms:
            raise UserError(f"balance.reference: there is no term '{self.balance.reference}'")
        if self.balance is not None and any(isinstance(term.predictor, Drawn) for term in self.terms.values()):
            raise UserError("balance: what a drawn picture costs pulls at the term that draws it; leave balance out")

    def input_of(self, term: Term) -> Input:
        """The input that a term explains its target from."""
        return self.inputs[term.x.partition("/")[0]]

    def part_of(self, term: Term) -> Part:
        """The part of it that target rows refer to: the one named, else the first."""
        parts = self.input_of(term).parts
        return parts[term.x.partition("/")[2] or next(iter(parts))]

    def named(self, role: type[Trained | Frozen | Ema]) -> list[str]:
        """The names of the encoders in a role."""
        return [name for name, value in self.encoders.items() if isinstance(value, role)]

    def reads_text_alone(self, term: Term) -> bool:
        """Whether a term explains its target from a text and nothing else."""
        return all(part.of == "text" for part in self.input_of(term).parts.values())

    def words_by_words(self, term: Term) -> bool:
        """Whether single words explain another encoder's rows of the same words."""
        rows = isinstance(term.target, Encoded) and term.target.rows != "pooled"
        return rows and term.y == "text" and self.reads_text_alone(term)

    @property
    def needs_texts(self) -> bool:
        """Whether samples must carry texts."""
        return any(term.y == "text" or self.reads_text_alone(term) for term in self.terms.values())

    @property
    def needs_labels(self) -> bool:
        """Whether samples must carry labels."""
        return any(term.y == "label" for term in self.terms.values())

    @property
    def needs_codes(self) -> bool:
        """Whether a teacher must have a code book."""
        return any(isinstance(term.target, Encoded) and term.target.space == "codes" for term in self.terms.values())

    @property
    def needs_categories(self) -> bool:
        """Whether a teacher must have learned categories."""
        return any(
            isinstance(term.target, Encoded) and term.target.space == "categories" for term in self.terms.values()
        )

    @property
    def joint(self) -> str | None:
        """The term whose predictor leads into the space that images and texts share, if there is one: an image's before
        a text's."""
        found = [name for name, term in self.terms.items() if self._leads_there(term)]
        of_images = (name for name in found if not self.reads_text_alone(self.terms[name]))
        return next(of_images, found[0] if found else None)

    def _leads_there(self, term: Term) -> bool:
        beside = term.y == "text" or self.reads_text_alone(term)
        return isinstance(term.target, Encoded) and (beside or self._frozen_joint(term.target))

    def _frozen_joint(self, target: Encoded) -> bool:
        return isinstance(self.encoders[target.encoder], Frozen) and target.space == "joint"


def regulariser(method: Method, term: Term) -> str:
    """What keeps the targets from collapsing: the regulariser column of M3I's table; `none` must be refused."""
    if term.likelihood.kind in {"boltzmann", "bernoulli", "sigmoid"}:
        return "negative categories" if isinstance(term.target, Table) else "negatives"
    if term.likelihood.kind == "cross_correlation":
        return "decorrelation"
    explicit = "" if term.regulariser is None else " + decorrelation"
    kinds = {"centred": " + centring", "prototypes": " + me-max"}
    explicit = kinds.get(term.likelihood.kind, explicit)
    if isinstance(term.target, Encoded):
        trained = isinstance(method.encoders[term.target.encoder], Trained)
        return "none" if trained else f"stop gradient{explicit}"
    return "none" if isinstance(term.target, Table) else "-"


def _encoder_of(term: Term) -> str:
    return term.target.encoder if isinstance(term.target, Encoded) else "table"


def _check_names(method: Method, name: str, term: Term) -> None:
    def known(path: str, word: str, names: list[str]) -> None:
        if word not in names:
            raise UserError(f"{path}: there is no '{word}' here{suggest(word, names)} (known: {', '.join(names)})")

    sources = [*method.views, "text"]
    known(f"terms.{name}.x", term.x, seen(method))
    known(f"terms.{name}.y", term.y, [*sources, "label"])
    asked = method.input_of(term)
    key = term.x.partition("/")[0]
    known(f"inputs.{key}.encoder", asked.encoder, method.named(Trained))
    for part, value in asked.parts.items():
        known(f"inputs.{key}.parts.{part}.of", value.of, sources)
        if value.hide is not None and isinstance(value.hide, SomeWords) != (value.of == "text"):
            raise UserError(f"inputs.{key}.parts.{part}.hide: words is how a text hides, and no other view")
        if isinstance(value.hide, Attentive):
            known(f"inputs.{key}.parts.{part}.hide.by", value.hide.by, method.named(Frozen))
        if isinstance(value.hide, Sampled) and value.mode == "drop":
            raise UserError(f"inputs.{key}.parts.{part}: sampled hides as many cells as it draws; use mode: replace")
        if (value.hide is None) != (value.mode == "full"):
            raise UserError(f"inputs.{key}.parts.{part}: hide and mode go together (drop or replace with a hide)")
    if asked.mix is not None and (
        len(asked.parts) != 2 or any(part.of == "text" or part.hide for part in asked.parts.values())
    ):
        raise UserError(f"inputs.{key}.mix: mixes two parts that are views and hide nothing themselves")
    parts = [part.of for part in asked.parts.values()]
    two = [view for view in parts if view in method.views and "blend" in method.views[view].alters]
    if two and "text" in {term.y, *parts}:
        raise UserError(f"terms.{name}: views.{two[0]} is a blend of two samples, which no text of one is true of")
    if isinstance(term.target, Encoded):
        known(f"terms.{name}.target.encoder", term.target.encoder, list(method.encoders))
        if (term.target.space == "codes") != (term.likelihood.kind == "categorical"):
            raise UserError(f"terms.{name}: target.space: codes and likelihood: categorical go together")
        _check_words(method, name, term, term.target)
        alone = term.target.sees == "hidden"
        varies = isinstance(method.part_of(term).hide, Sampled)
        if alone and (
            varies or isinstance(method.encoders[term.target.encoder], Frozen) or term.target.rows != "hidden"
        ):
            raise UserError(f"terms.{name}: target.sees: hidden is for an encoder of this row, and rows: hidden")
    elif (term.likelihood.kind == "categorical") != isinstance(term.target, Spelled):
        raise UserError(
            f"terms.{name}: likelihood: categorical explains codes of an encoder, target.space: codes, or words"
        )
    check_scores(name, term, method.named(Frozen))
    if term.likelihood.kind == "bernoulli" and not isinstance(term.target, Table):
        raise UserError(f"terms.{name}: likelihood: bernoulli tells the classes of a table, target: table")
    if isinstance(term.target, Table) != (term.y == "label"):
        raise UserError(f"terms.{name}: y: label and target: table go together")


def _check_words(method: Method, name: str, term: Term, target: Encoded) -> None:
    """An encoder's rows of words are explained by words, and a teacher gives them in the joint space."""
    if term.y != "text":
        return
    if target.rows != "pooled" and not method.reads_text_alone(term):
        raise UserError(
            f"terms.{name}.target.rows: {target.rows} of a text are explained by an input of that text alone; "
            "use rows: pooled"
        )
    plain = (target.space, target.blocks, target.fit) == ("joint", (), "exact")
    if isinstance(method.encoders[target.encoder], Frozen) and not plain:
        raise UserError(
            f"terms.{name}.target: a teacher answers for words in the joint space, with its last rows; "
            "leave space, blocks and fit out"
        )


def _pair(term: Term) -> tuple[PredictorSpec, LikelihoodSpec]:
    return term.predictor, term.likelihood


def _check_projectors(method: Method) -> None:
    """Each is there, is used, and belongs to one encoder; a predictor that is shared is there too."""
    owner: dict[str, str] = {}
    for name, term in method.terms.items():
        other = method.terms.get(term.shares) if term.shares is not None else term
        if other is None or (other is not term and (other.shares is not None or _pair(other) != _pair(term))):
            raise UserError(f"terms.{name}.shares: '{term.shares}' is no term with this predictor and likelihood")
        if term.projector is None:
            continue
        if term.projector not in method.projectors:
            raise UserError(
                f"terms.{name}.projector: there is no '{term.projector}' in projectors"
                f"{suggest(term.projector, list(method.projectors))}"
            )
        made = method.projectors[term.projector]
        pooled = isinstance(term.target, Table) or term.target.rows == "pooled"
        if isinstance(made, (Mlp, Codes)) and made.of == "pooled" and not pooled:
            raise UserError(f"terms.{name}: projector '{term.projector}' leaves the pooled row alone; use of: both")
        student = method.input_of(term).encoder
        if owner.setdefault(term.projector, student) != student:
            raise UserError(
                f"projectors.{term.projector}: follows both '{owner[term.projector]}' and '{student}'; give each "
                "encoder a projector of its own"
            )
    for name in method.projectors.keys() - owner.keys():
        raise UserError(f"projectors.{name}: no term uses it; name it as a term's projector, or remove it")


def _check_match(method: Method, name: str, term: Term) -> None:
    """Rows are compared where one encoder, or its average, made both, and an input shows its view whole."""
    if term.match == "place":
        return
    target, asked = term.target, method.input_of(term)
    role = method.encoders[target.encoder] if isinstance(target, Encoded) else None
    alike = isinstance(target, Encoded) and (
        target.encoder == asked.encoder or (isinstance(role, Ema) and role.of == asked.encoder)
    )
    if not alike or target.rows != "all" or term.predictor.reaches != "rows":
        raise UserError(
            f"terms.{name}.match: nearest compares the rows of an encoder with rows of its average: it takes target: "
            "{kind: encoded, rows: all} of such an encoder, and a predictor that answers row by row"
        )
    if asked.mix is not None or method.part_of(term).hide is not None:
        raise UserError(f"terms.{name}.match: nearest compares all rows, but input '{term.x}' hides or mixes some")


def _check_reach(method: Method, name: str, term: Term) -> None:
    """A predictor that reads the encoder's own rows cannot answer for rows that were dropped."""
    asked, part = method.input_of(term), method.part_of(term)
    rows = "pooled" if isinstance(term.target, Table) else term.target.rows
    if part.hide is None and asked.mix is None and rows == "hidden":
        raise UserError(f"terms.{name}.target.rows: hidden, but input '{term.x}' hides nothing")
    if isinstance(part.hide, Sampled) and rows.startswith("kept"):
        raise UserError(f"terms.{name}.target.rows: {rows}, but as many cells stay as sampled draws; use hidden or all")
    missing = part.mode == "drop" or asked.mix is not None
    if term.projector is not None and isinstance(method.projectors.get(term.projector), Regressor):
        if part.mode != "drop" or rows != "hidden" or term.predictor.reaches != "rows":
            raise UserError(
                f"terms.{name}: projector '{term.projector}' gives rows of hidden cells alone; it takes an input of "
                "mode: drop, target rows: hidden, and a predictor that answers row by row"
            )
        missing = False
    if missing and rows in {"hidden", "all", "all+cls"} and term.predictor.reaches == "rows":
        raise UserError(
            f"terms.{name}: predictor {term.predictor.kind} reads the encoder's own rows, but input '{term.x}' drops "
            f"some of the rows '{rows}'. Use a decoder, mode: replace, or rows: kept."
        )
    elsewhere = part.of != term.y and term.y in method.views and term.match == "place"
    if elsewhere and rows != "pooled" and term.predictor.reaches != "views":
        raise UserError(
            f"terms.{name}: predictor {term.predictor.kind} is not told where '{term.y}' lies, but input '{term.x}' is "
            f"'{part.of}', cut elsewhere from the sample. Use predictor: {{kind: relative}}, match: nearest, or rows: "
            "pooled."
        )
    silent = {"cells", "views"} if rows.endswith("+cls") else {"cells"} if rows == "pooled" else set[str]()
    if term.predictor.reaches in silent:
        raise UserError(f"terms.{name}: this {term.predictor.kind} guesses cells alone; use rows: all, kept or hidden")


def seen(method: Method) -> list[str]:
    """What the x of a term may name: inputs, and of those that have two parts each part."""
    return [
        word
        for name, asked in method.inputs.items()
        for word in ([name] if len(asked.parts) == 1 else [f"{name}/{part}" for part in asked.parts])
    ]
