"""What a step leaves out of a term: samples that lack what it reads, and samples that were drawn to be left out."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from onestage.objective.declare import Method, Term
from onestage.types import Batch, Represented, Target, Wanted


def drop_terms(method: Method, represented: Represented) -> Represented:
    """Leave samples out of the terms that have a dropped share, a term at random staying where all would go."""
    names = [name for name, term in method.terms.items() if term.dropped]
    if not names:
        return represented
    first = represented.guesses[names[0]]
    share = torch.tensor([method.terms[name].dropped for name in names], device=first.device)
    draw = torch.rand(first.shape[0], len(names), device=first.device)
    kept = draw >= share
    kept |= ~kept.any(dim=1, keepdim=True) & (draw == draw.max(dim=1, keepdim=True).values)
    targets = dict(represented.targets)
    for column, name in enumerate(names):
        weight = kept[:, column, None].float().expand(represented.guesses[name].shape[:2])
        given = targets[name].weight
        targets[name] = targets[name]._replace(weight=weight if given is None else given * weight)
    return represented._replace(targets=targets)


def given(term: Term, method: Method, batch: Batch) -> Bool[Tensor, " b"] | None:
    """Where a batch has the label and the text that a term reads; None: everywhere."""
    reads_text = term.y == "text" or any(part.of == "text" for part in method.input_of(term).parts.values())
    label = batch.labelled if term.y == "label" else None
    text = batch.words.given if reads_text and batch.words is not None else None
    return text if label is None else label if text is None else label & text


def blended(target: Target, term: Term, method: Method, batch: Batch) -> Target:
    """A table's target with the other class that the term's view shows, where that is blended."""
    found = batch.blends.get(method.part_of(term).of) if term.y == "label" else None
    if found is None or batch.labelled is None:
        return target._replace(blend=found)
    return target._replace(blend=found._replace(label=found.label.clamp_min(0)))


def without_missing(target: Target, wanted: Wanted, given: Bool[Tensor, " b"] | None) -> Target:
    """A target whose rows weigh nothing in samples that lack what the term reads."""
    if given is None:
        return target
    weight = given.unsqueeze(1).expand(wanted.cell.shape).float()
    return target._replace(weight=weight if target.weight is None else target.weight * weight)
