"""Multi-crop: many small views of an image, and the terms between every view and the others.

SwAV (arXiv:2006.09882, section 3.2), DINO (arXiv:2104.14294, eq. 3): every view that the student sees explains every
global view but itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from onestage.objective.declare import Method
from onestage.objective.terms import Input, Part, Term
from onestage.views import ViewSpec

LOCAL = "local"
"""Views of this name and a number are a group of small crops."""


def local_views(count: int, view: ViewSpec) -> dict[str, ViewSpec]:
    """The same view `count` times: `local1`, `local2` and so on, each drawn by itself."""
    return {f"{LOCAL}{number + 1}": view for number in range(count)}


def local_inputs(count: int, encoder: str = "student") -> dict[str, Input]:
    """Each of them as an input."""
    names = (f"{LOCAL}{number + 1}" for number in range(count))
    return {name: Input(encoder=encoder, parts={"image": Part(of=name)}) for name in names}


def pairs(inputs: Mapping[str, Input], ys: Sequence[str], term: Term, weight: float = 1.0) -> dict[str, Term]:
    """`term` from every input to every view in `ys` but those that the input shows, `weight` shared out equally; all
    of them with the first one's predictor and likelihood."""
    found = [(x, y) for x, asked in inputs.items() for y in ys if y not in {part.of for part in asked.parts.values()}]
    first = "{}_{}".format(*found[0])
    return {
        f"{x}_{y}": dataclasses.replace(
            term, x=x, y=y, weight=weight / len(found), shares=None if f"{x}_{y}" == first else first
        )
        for x, y in found
    }


def fewer(method: Method, most: int, view: ViewSpec | None = None) -> Method:
    """The method with at most so many local views (of another kind, where `view` is given); the terms that share a
    likelihood weigh together what they weighed."""
    gone = {name for name in method.views if is_local(name) and int(name.removeprefix(LOCAL)) > most}
    views = {name: view if view is not None and is_local(name) else one for name, one in method.views.items()}
    blind = {name for name, asked in method.inputs.items() if any(part.of in gone for part in asked.parts.values())}
    terms = {name: term for name, term in method.terms.items() if term.x not in blind and term.y not in gone}
    before, after = _sums(method.terms), _sums(terms)
    return dataclasses.replace(
        method,
        views={name: one for name, one in views.items() if name not in gone},
        inputs={name: asked for name, asked in method.inputs.items() if name not in blind},
        terms={
            name: dataclasses.replace(term, weight=term.weight * before[owner] / after[owner])
            for name, term in terms.items()
            for owner in [term.shares or name]
        },
    )


def is_local(view: str) -> bool:
    """Whether a view is one of a group of small crops."""
    return view.startswith(LOCAL) and view.removeprefix(LOCAL).isdecimal()


def _sums(terms: Mapping[str, Term]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, term in terms.items():
        found[term.shares or name] = found.get(term.shares or name, 0.0) + term.weight
    return found
