"""A method's terms as rows of M3I's table (arXiv:2211.09807, table 1)."""

from __future__ import annotations

import re

from onestage.objective.crops import LOCAL
from onestage.objective.declare import Method, Term, regulariser
from onestage.targets import OfPixels, Spelled, Table

COLUMNS = ("method", "term", "input x", "target y", "z_x", "z_y", "predictor", "regulariser", "P_hat", "weight")


def term_rows(method: Method) -> list[tuple[str, ...]]:
    """One row a term, in the columns of M3I's table; one for all small crops of a group that explain the same."""
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, term in method.terms.items():
        row = _row(method, name, term)
        groups.setdefault(_of_group(row), []).append(row)
    return [
        rows[0] if len(rows) == 1 else (*group[:-1], f"{len(rows)} x {group[-1]}") for group, rows in groups.items()
    ]


def _row(method: Method, name: str, term: Term) -> tuple[str, ...]:
    return (
        method.name,
        name,
        _input(method, term),
        term.y,
        _seen(method, term),
        _target(term),
        term.predictor.kind,
        regulariser(method, term),
        _likelihood(term),
        f"{term.weight:.4g}",
    )


def _of_group(row: tuple[str, ...]) -> tuple[str, ...]:
    """The row with the name of a group of small crops in place of the name of one of them."""
    return tuple(re.sub(rf"\b{LOCAL}\d+(?![^\W_])", LOCAL, word) for word in row)


def _input(method: Method, term: Term) -> str:
    asked = method.input_of(term)
    if asked.mix is not None:
        first, second = (part.of for part in asked.parts.values())
        slot = term.x.partition("/")[2]
        return f"{slot} of {first} mixed with another's {second}"
    words = []
    for part in asked.parts.values():
        hide = "" if part.hide is None else f" {part.mode} {part.hide.kind.replace('_', ' ')}"
        words.append(f"{part.of}{hide}")
    return " + ".join(words)


def _seen(method: Method, term: Term) -> str:
    """Which of the encoder's rows the predictor reads: its pooled row, or all that it returned."""
    whole = isinstance(term.target, Table) or (term.target.rows == "pooled" and term.predictor.reaches == "rows")
    through = f" + {method.projectors[term.projector].kind}" if term.projector is not None else ""
    return f"{method.input_of(term).encoder}{through}, {'pooled' if whole else 'rows'}"


def _target(term: Term) -> str:
    target = term.target
    if isinstance(target, Table):
        return "category embedding"
    if isinstance(target, Spelled):
        return "words, hidden"
    if isinstance(target, OfPixels):
        return f"{target.kind}, {target.rows}"
    if target.space == "codes":
        return f"codes of {target.encoder}, {target.rows}"
    if target.space == "categories":
        return f"categories of {target.encoder}"
    blocks = f", blocks {'+'.join(f'-{number}' for number in target.blocks)}" if target.blocks else ""
    norm = "" if target.norm == "none" else f", {target.norm} norm"
    return f"{target.encoder}, {target.rows}{blocks}{norm}"


def _likelihood(term: Term) -> str:
    likelihood = term.likelihood
    if likelihood.kind == "cross_correlation":
        return "Gaussian (cross-correlation)"
    if likelihood.kind == "sigmoid":
        return "Bernoulli (pairs of the batch)"
    if likelihood.kind == "bernoulli":
        return "Bernoulli (classes)"
    if likelihood.kind == "categorical":
        return "categorical"
    if likelihood.kind == "scores":
        return f"categorical ({likelihood.form})"
    if likelihood.kind == "centred":
        return "Boltzmann (codes)"
    if likelihood.kind == "prototypes":
        return "Boltzmann (prototypes)"
    return f"Gaussian ({likelihood.form})" if likelihood.kind == "gaussian" else f"Boltzmann ({likelihood.over})"
