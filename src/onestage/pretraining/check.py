"""Every mistake that would waste hours, found in seconds: the data, the models, the teacher and the numbers.

Each question is a function that answers with faults; nothing is trained and nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from onestage.data import open_source, parts_of
from onestage.data.classes import read_classes
from onestage.encoders import ClipImage, ClipText, Vit
from onestage.engine.pieces import on_device
from onestage.likelihood import Boltzmann
from onestage.objective import asks
from onestage.pretraining.initialise import initialise_from, starts_of
from onestage.pretraining.prepare import Prepared, open_data, prepare, stills
from onestage.pretraining.spec import Recipe
from onestage.pretraining.watch import watching
from onestage.roles import BadSample, Sample, Source
from onestage.spec import UserError
from onestage.targets import Encoded
from onestage.teachers import LibraryImage, read_stored
from onestage.types import Losses

SAMPLES = 64
"""How many samples are looked at."""
WATCHED = 8
"""How many samples each watched evaluation is tried on."""
FAR = 8.0
"""How many times a batch may differ from the one that a learning rate was found at, where it is not rescaled."""


COLD = 0.01
"""The temperature that CLIP ends at (its largest scale is 100)."""


def check_recipe(recipe: Recipe, classes: Path | None) -> list[str]:
    """All faults of a recipe, in plain words; an empty list means that it is ready to train."""
    faults: list[str] = []
    try:
        source = open_data(recipe)
        faults += [*_length(recipe, source), *(fault for part in parts_of(source) for fault in _samples(recipe, part))]
        faults += [*_classes(recipe, source, classes), *_stills(recipe, source)]
        faults += [*_learning_rate(recipe), *_normalisation_of_start(recipe)]
        if any("every file" in fault for fault in faults):
            return faults
        prepared = prepare(recipe, None)
    except UserError as error:
        return [*faults, str(error)]
    faults += [*_start(prepared), *_teachers(prepared), *_statistics(prepared), *_hiding(prepared)]
    return [*faults, *_watched(prepared), *_first_batch(prepared)]


def _length(recipe: Recipe, source: Source) -> Iterator[str]:
    count = len(source)
    if count < recipe.batch:
        yield f"data: {recipe.data} holds {count} samples, fewer than one batch of {recipe.batch}"


def _samples(recipe: Recipe, source: Source) -> Iterator[str]:
    looked, reasons = _look(source)
    if reasons and not looked:
        yield f"data: every file that was tried fails to decode ({len(reasons)} of {len(reasons)}; first: {reasons[0]})"
        return
    if reasons:
        yield f"data: {len(reasons)} of {len(looked) + len(reasons)} samples cannot be used (first: {reasons[0]})"
    if recipe.method.needs_texts and source.has_texts:
        yield from _captions(recipe, source, looked)


def _look(source: Source) -> tuple[list[Sample], list[str]]:
    """Samples spread over the source that decode, and why others do not."""
    step = max(len(source) // SAMPLES, 1)
    looked, reasons = [], []
    for index in range(0, len(source), step)[:SAMPLES]:
        try:
            sample = source[index]
            sample.picture.decode()
            looked.append(sample)
        except BadSample as error:
            reasons.append(str(error))
    return looked, reasons


def _captions(recipe: Recipe, source: Source, looked: list[Sample]) -> Iterator[str]:
    texts = [text for sample in looked for text in sample.texts]
    if len(looked) > 1 and len(set(texts)) == 1:
        yield f"captions: all captions are equal ('{texts[0][:60]}'), so there is nothing to tell images apart by"
    bare = sum(not sample.texts for sample in looked)
    if bare:
        yield f"captions: {bare} of {len(looked)} samples have none; they would be replaced by others"
    method = recipe.method
    read = {method.part_of(term).of for term in method.terms.values() if term.y == "text"}
    read |= {term.y for term in method.terms.values() if method.reads_text_alone(term)}
    for name in sorted(read & method.views.keys()):  # a view that no text is read with may change as it likes
        lies = sorted(method.views[name].alters - source.keeps_captions)
        if lies:
            yield (
                f"views.{name}: {' and '.join(lies)} can make the captions of {recipe.data} false; "
                "turn it off (scale: [1, 1], flip: 0, colour: null), or say with ?keeps= what leaves them true"
            )


def _stills(recipe: Recipe, source: Source) -> Iterator[str]:
    told = stills(recipe.method, source)
    if told:
        yield f"data: {told}"


def _classes(recipe: Recipe, source: Source, classes: Path | None) -> Iterator[str]:
    if classes is None:
        return
    names = read_classes(classes)
    judged = open_source(recipe.val) if recipe.val else source
    known = len(judged.classes)
    if known and len(names) != known:
        yield f"classes: {classes} names {len(names)} classes, but {judged.name} has {known} labels"
    elif len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        yield f"classes: {classes} names '{twice}' more than once"


def _learning_rate(recipe: Recipe) -> Iterator[str]:
    optimiser = recipe.optimiser
    ratio = optimiser.reference_batch / recipe.batch
    if optimiser.rule == "none" and max(ratio, 1 / ratio) >= FAR:
        rates = ", ".join(f"{group.lr:g}" for group in optimiser.groups.values())
        yield (
            f"optimiser: the learning rate {rates} was found at batch {optimiser.reference_batch}, "
            f"{ratio:.3g} times this batch of {recipe.batch}, and rule: none does not rescale it; use rule: linear"
        )


def _normalisation_of_start(recipe: Recipe) -> Iterator[str]:
    if recipe.init is None:
        return
    reference = starts_of(recipe.init).get("image")
    wanted = recipe.models.get(recipe.student)
    if reference is None or not isinstance(wanted, (Vit, ClipImage)):
        return
    given = read_stored(reference)[0].bundle.encoder
    if isinstance(given, (Vit, ClipImage, LibraryImage)):
        theirs = given.statistics if isinstance(given, LibraryImage) else given.normalise
        if theirs != wanted.normalise:
            yield (
                f"models.{recipe.student}.normalise: {wanted.normalise}, but the weights of {reference} learned from "
                f"pixels normalised by {'statistics of their own' if theirs == 'own' else theirs}"
            )


def _start(prepared: Prepared) -> Iterator[str]:
    if prepared.recipe.init is None:
        yield from _from_nothing(prepared.recipe)
        return
    try:
        initialise_from(prepared.objective, prepared.recipe, prepared.recipe.init)
    except UserError as error:
        yield str(error)


def _from_nothing(recipe: Recipe) -> Iterator[str]:
    """A temperature that stays where CLIP's ends is for towers that agree already."""
    for key, term in recipe.method.terms.items():
        how = term.likelihood
        if not isinstance(how, Boltzmann) or (how.over, how.temperature_is) != ("batch", "fixed"):
            continue
        if how.temperature is not None and how.temperature <= COLD:
            yield (
                f"terms.{key}.likelihood: its temperature stays at {how.temperature:g}, which suits encoders that "
                "agree already, and here they are drawn at random; start from a run or a model (--init), or let it be "
                f"learned (--method.terms.{key}.likelihood.temperature_is learned)"
            )


def _teachers(prepared: Prepared) -> Iterator[str]:
    for name, teacher in prepared.teachers.items():
        learning = [module for part in teacher.parts() for module in part.modules() if module.training]
        if learning:
            yield (
                f"teachers.{name}: {len(learning)} of its modules are in training mode "
                f"({type(learning[0]).__name__}...), so its answers would change; call eval() on it"
            )
        if any(parameter.requires_grad for part in teacher.parts() for parameter in part.parameters()):
            yield f"teachers.{name}: it has parameters that require gradients; a teacher is frozen"


def _statistics(prepared: Prepared) -> Iterator[str]:
    """A student that learns a teacher's joint rows should see pixels as the teacher sees them."""
    recipe = prepared.recipe
    for name, model in recipe.models.items():
        if not isinstance(model, ClipText) and model.normalise == "none":
            yield f"models.{name}.normalise: none leaves the pixels in [0, 1]; use clip, imagenet or half"
    for key, term in recipe.method.terms.items():
        target = term.target
        if not isinstance(target, Encoded) or target.encoder not in prepared.teachers or target.space != "joint":
            continue
        student = recipe.method.input_of(term).encoder
        model = recipe.models[student]
        theirs = prepared.teachers[target.encoder].statistics
        if not isinstance(model, ClipText) and theirs != "own" and model.normalise not in {theirs, "none"}:
            yield (
                f"terms.{key}: normalisation mixed up: '{student}' normalises pixels by {model.normalise}, but its "
                f"teacher by {theirs}; set models.{student}.normalise: {theirs}"
            )


def _hiding(prepared: Prepared) -> Iterator[str]:
    """A share of a small grid may round down to no cell at all."""
    method = prepared.recipe.method
    for name, asked in method.inputs.items():
        grid = prepared.objective.encoder(asked.encoder).grid
        for key, part in asked.parts.items():
            if part.hide is not None and part.hide.count(grid) == 0:
                yield f"inputs.{name}.parts.{key}.hide: hides none of {grid[0]}x{grid[1]} cells; hide more of them"


def _watched(prepared: Prepared) -> Iterator[str]:
    """What would be watched during training, on a few samples; but zero-shot would encode every prompt."""
    watch = dataclasses.replace(prepared.recipe.watch, samples=WATCHED)
    if prepared.val is None or watch.every == 0:
        return
    for task in watch.tasks:
        if task == "zero-shot":
            continue
        try:
            watching(task)(prepared._replace(recipe=dataclasses.replace(prepared.recipe, watch=watch)))
        except UserError as error:
            yield f"watch.tasks: {error}"


def _first_batch(prepared: Prepared) -> Iterator[str]:
    """One batch all the way to the losses."""
    try:
        losses = _losses(prepared)
    except UserError as error:
        yield str(error)
        return
    for name, loss in losses.terms.items():
        if not bool(torch.isfinite(loss)):
            yield f"terms.{name}: its first loss is {loss.item()}"


@torch.no_grad()
def _losses(prepared: Prepared) -> Losses:
    batch = on_device(prepared.batches[0], prepared.device)
    return prepared.objective(batch, {ask: prepared.server(ask, batch) for ask in asks(prepared.recipe.method)})
