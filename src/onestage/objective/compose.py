"""Sums of rows: any rows of the table trained as one run (M3I, eq. 4: the terms of all of them add up).

What two rows declare alike is shared: the student, a view of the same name and form, an input and so its encoding, an
averaged encoder. What they declare differently under one name is kept apart, as `ROW_NAME`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from onestage.objective.declare import Ema, Input, Method, Part, Term
from onestage.predictors import Drawn
from onestage.spec import UserError
from onestage.targets import Encoded
from onestage.views import Crop, HideSpec

S = TypeVar("S")


def add(rows: Sequence[tuple[float, Method]]) -> Method:
    """One method with the terms of all rows, each row's weights multiplied by its factor.

    Raises:
        UserError: when there are fewer than two rows, or one stands twice.
    """
    names = [row.name for _, row in rows]
    if len(set(names)) < max(len(names), 2):
        raise UserError(f"a sum takes two different rows at least, not {' + '.join(names) or 'none'}")
    total = rows[0][1]
    total = dataclasses.replace(total, terms=_weighted(total.terms, rows[0][0]))
    for factor, row in rows[1:]:
        total = _join(total, row, factor)
    return dataclasses.replace(total, name="+".join(names), cite="; ".join(row.cite for _, row in rows))


def hiding(method: Method, hide: HideSpec) -> Method:
    """The method with another way of hiding wherever it hides."""
    inputs = {
        name: dataclasses.replace(
            asked,
            parts={
                key: dataclasses.replace(part, hide=hide) if part.hide is not None else part
                for key, part in asked.parts.items()
            },
        )
        for name, asked in method.inputs.items()
    }
    return dataclasses.replace(method, inputs=inputs)


def unblended(method: Method) -> Method:
    """The method with every view showing one sample alone."""
    views = {
        name: dataclasses.replace(view, blend=None) if isinstance(view, Crop) else view
        for name, view in method.views.items()
    }
    return dataclasses.replace(method, views=views)


def _weighted(terms: Mapping[str, Term], factor: float) -> dict[str, Term]:
    return {name: dataclasses.replace(term, weight=factor * term.weight) for name, term in terms.items()}


def _join(total: Method, row: Method, factor: float) -> Method:
    views = _names(total.views, row.views, row.name)
    encoders = _names(total.encoders, row.encoders, row.name)
    roles = {
        encoders[name]: dataclasses.replace(role, of=encoders[role.of]) if isinstance(role, Ema) else role
        for name, role in row.encoders.items()
    }
    seen = {name: _input(asked, views, encoders) for name, asked in row.inputs.items()}
    inputs = _names(total.inputs, seen, row.name)
    projectors = _names(total.projectors, row.projectors, row.name)
    terms = {name: _term(term, views, encoders, inputs, projectors) for name, term in row.terms.items()}
    kept = {name: name if name not in total.terms else f"{row.name}_{name}" for name in terms}
    shared = {kept[name]: _renamed(term, kept) for name, term in terms.items()}
    weighted = _weighted(shared, factor)
    return dataclasses.replace(
        total,
        views=total.views | {views[name]: view for name, view in row.views.items()},
        encoders=total.encoders | roles,
        inputs=total.inputs | {inputs[name]: asked for name, asked in seen.items()},
        terms=total.terms | weighted,
        projectors=total.projectors | {projectors[name]: one for name, one in row.projectors.items()},
        balance=total.balance or row.balance,
    )


def _renamed(term: Term, names: Mapping[str, str]) -> Term:
    """A term that names others by what they have become."""
    term = dataclasses.replace(term, shares=None if term.shares is None else names[term.shares])
    if not isinstance(term.predictor, Drawn):
        return term
    return dataclasses.replace(term, predictor=dataclasses.replace(term.predictor, of=names[term.predictor.of]))


def _names(held: Mapping[str, S], new: Mapping[str, S], row: str) -> dict[str, str]:
    """What each name of a row becomes: itself where nothing else has it."""
    return {name: name if held.get(name, value) == value else f"{row}_{name}" for name, value in new.items()}


def _input(asked: Input, views: Mapping[str, str], encoders: Mapping[str, str]) -> Input:
    parts = {name: _part(part, views) for name, part in asked.parts.items()}
    return dataclasses.replace(asked, encoder=encoders[asked.encoder], parts=parts)


def _part(part: Part, views: Mapping[str, str]) -> Part:
    return dataclasses.replace(part, of=views.get(part.of, part.of))


def _term(
    term: Term,
    views: Mapping[str, str],
    encoders: Mapping[str, str],
    inputs: Mapping[str, str],
    projectors: Mapping[str, str],
) -> Term:
    name, slash, part = term.x.partition("/")
    target = term.target
    if isinstance(target, Encoded):
        target = dataclasses.replace(target, encoder=encoders[target.encoder])
    through = None if term.projector is None else projectors[term.projector]
    return dataclasses.replace(
        term, x=inputs[name] + slash + part, y=views.get(term.y, term.y), target=target, projector=through
    )
