"""What a run leaves beside its checkpoints so that it stands alone as a model; and the live model, while it trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from onestage.encoders import ClipText
from onestage.encoders.clip import ClipTextEncoder
from onestage.likelihood.tempered import Tempered
from onestage.objective import Ema, Frozen
from onestage.predictors import Quantised, QuantisedPredictor
from onestage.pretraining.directory import licences
from onestage.pretraining.lines import Say
from onestage.pretraining.prepare import Prepared
from onestage.pretraining.spec import Recipe
from onestage.spec import UserError
from onestage.targets import Encoded, Table
from onestage.targets.table import TableTarget
from onestage.teachers import (
    AnyTeacher,
    BundleSpec,
    LibraryTeacher,
    RunTeacher,
    TextSide,
    image_side,
    save_images,
    with_texts,
    write_bundle,
)
from onestage.teachers.bundle import BookSide
from onestage.teachers.category import BothHeads, CategorySide, TableHead, TaughtHead, TaughtSide, Through
from onestage.teachers.text import ClipWords, TextTower


class Described(NamedTuple):
    """What a run's model is, the text tower that it copies from its teacher, and why there is none; and the teacher
    whose images it reads, where it trains a text tower alone."""

    bundle: BundleSpec
    copied: TextTower | None
    lack: str
    beside: AnyTeacher | None = None


def save_bundle(prepared: Prepared, run: Path, say: Say = print) -> None:
    """Write the bundle of a run: the text tower is copied from the teacher, or named where the run trains it."""
    found = describe(prepared)
    if found.lack:
        say(f"this run will have no texts (no zero-shot, no retrieval): {found.lack}")
    write_bundle(run, found.bundle, found.copied, prepared.source.classes if found.bundle.category else ())
    if isinstance(found.beside, RunTeacher):
        save_images(run, found.beside, found.bundle)
    elif found.beside is not None:
        say(f"images will be read by {found.beside.reference}, which is not copied into the run")


def describe(prepared: Prepared) -> Described:
    """The bundle of a run as it is to be written."""
    recipe, method = prepared.recipe, prepared.recipe.method
    term = method.joint
    if term is not None and isinstance(recipe.models[recipe.student], ClipText):
        return _of_texts(prepared, term)
    side, copied, lack = _text(prepared, term)
    averages = [name for name, role in method.encoders.items() if isinstance(role, Ema) and role.of == recipe.student]
    bundle = BundleSpec(
        encoder=recipe.models[recipe.student],
        name=recipe.student,
        average=averages[0] if averages else None,
        head_of=term,
        head=method.terms[term].predictor if term else None,
        through=_through(recipe, term) if term else None,
        joint=prepared.objective.target(term).width if term else None,
        text=side,
        category=_category(recipe),
        book=_book(prepared, term),
        pool=_pool(recipe),
        licence=licences(dict(prepared.teachers)),
    )
    return Described(bundle, copied, lack)


def _of_texts(prepared: Prepared, term: str) -> Described:
    """The bundle of a run that trains a text tower beside its teacher's images."""
    recipe = prepared.recipe
    found, model = recipe.method.terms[term], recipe.models[recipe.student]
    assert isinstance(found.target, Encoded) and isinstance(model, ClipText), "texts explain an encoder's rows"
    teacher = prepared.teachers[found.target.encoder]
    learned = found.likelihood.kind == "boltzmann"
    side = TextSide(
        encoder=model,
        trained_as=recipe.student,
        scale_of=term if learned else None,
        scale=teacher.scale,
        templates=recipe.templates or teacher.templates,
    )
    bundle = dataclasses.replace(image_side(teacher, found.target.space), text=side)
    return Described(bundle, None, "", teacher)


def _pool(recipe: Recipe) -> Literal["cls", "mean"]:
    """The mean of the patch rows, where no term is explained by the pooled row of the encoder."""
    method = recipe.method
    own = (term for term in method.terms.values() if method.input_of(term).encoder == recipe.student)
    rows = {"pooled" if isinstance(term.target, Table) else term.target.rows for term in own}
    return "cls" if rows & {"pooled", "all+cls", "kept+cls"} else "mean"


def live(prepared: Prepared) -> RunTeacher | LibraryTeacher:
    """The model as it is now, to be watched while it trains; its encoder must be in evaluation mode."""
    bundle, text, _, beside = describe(prepared)
    objective = prepared.objective
    side = bundle.text
    if side is not None and side.trained_as is not None:
        encoder = objective.encoder(side.trained_as)
        assert isinstance(side.encoder, ClipText) and isinstance(encoder, ClipTextEncoder), "the one that a run trains"
        text = ClipWords(side.encoder, encoder)
    scale = side.scale if side is not None else 1.0
    if beside is not None and text is not None:
        return with_texts(beside, bundle, text, scale)
    head = objective.predictor(bundle.head_of) if bundle.head_of else None
    categories = _live_categories(prepared, bundle.category) if bundle.category else None
    projector = None if bundle.through is None else objective.projectors.named(bundle.through.name)
    book = objective.predictor(bundle.book.term) if bundle.book else None
    assert book is None or isinstance(book, QuantisedPredictor), "a code book is that of such a predictor"
    return RunTeacher("live", bundle, objective.encoder(bundle.name), projector, head, text, scale, categories, book)


def _book(prepared: Prepared, joint: str | None) -> BookSide | None:
    """The first code book of the student, where it is not that of the joint space."""
    method = prepared.recipe.method
    for name, term in method.terms.items():
        own = method.input_of(term).encoder == prepared.recipe.student and term.projector is None
        if isinstance(term.predictor, Quantised) and own and name != joint:
            return BookSide(term=name, predictor=term.predictor, out=prepared.objective.target(name).width)
    return None


def _category(recipe: Recipe) -> CategorySide | None:
    """The first term that teaches the student categories."""
    for name, term in recipe.method.terms.items():
        if isinstance(term.target, Table) and recipe.method.input_of(term).encoder == recipe.student:
            through = _through(recipe, name)
            return CategorySide(
                term=name,
                predictor=term.predictor,
                likelihood=term.likelihood,
                through=through,
                taught=_taught(recipe),
            )
    return None


def _taught(recipe: Recipe) -> TaughtSide | None:
    """The first term that teaches the student a teacher's categories."""
    for name, term in recipe.method.terms.items():
        scores = isinstance(term.target, Encoded) and term.target.space == "categories"
        if scores and recipe.method.input_of(term).encoder == recipe.student:
            return TaughtSide(term=name, predictor=term.predictor, through=_through(recipe, name))
    return None


def _through(recipe: Recipe, term: str) -> Through | None:
    """The projector of a term."""
    name = recipe.method.terms[term].projector
    return None if name is None else Through(name=name, projector=recipe.method.projectors[name])


def _live_categories(prepared: Prepared, side: CategorySide) -> TableHead | BothHeads:
    objective = prepared.objective
    table, likelihood = objective.target(side.term), objective.likelihood(side.term)
    assert isinstance(table, TableTarget) and isinstance(likelihood, Tempered), "a category's term has both"
    projector = None if side.through is None else objective.projectors.named(side.through.name)
    names, taught = prepared.source.classes, side.taught
    head = TableHead(objective.predictor(side.term), table, likelihood, names, projector)
    if taught is None:
        return head
    projector = None if taught.through is None else objective.projectors.named(taught.through.name)
    return BothHeads(head, TaughtHead(objective.predictor(taught.term), projector, names, head.count))


def _text(prepared: Prepared, term: str | None) -> tuple[TextSide | None, TextTower | None, str]:
    recipe, method = prepared.recipe, prepared.recipe.method
    if term is None:
        return None, None, ""
    target = method.terms[term].target
    assert isinstance(target, Encoded), "a joint term explains an encoder's rows"
    if isinstance(method.encoders[target.encoder], Frozen):
        own = _aligned(recipe, target.encoder)
        if own is None:
            return _copied(prepared, target.encoder)
        teacher, model = prepared.teachers[target.encoder], recipe.models[own]
        assert isinstance(model, ClipText), "words are read by CLIP's text tower"
        templates = recipe.templates or teacher.templates
        return TextSide(encoder=model, trained_as=own, scale=teacher.scale, templates=templates), None, ""
    encoder = recipe.models[target.encoder]
    if not isinstance(encoder, ClipText):
        return None, None, ""
    side = TextSide(encoder=encoder, trained_as=target.encoder, scale_of=term, templates=recipe.templates)
    return side, None, ""


def _aligned(recipe: Recipe, teacher: str) -> str | None:
    """The text tower that is trained to be where a teacher's is, in a sum of UTA for images and for texts."""
    for term in recipe.method.terms.values():
        target = term.target
        if recipe.method.words_by_words(term) and isinstance(target, Encoded) and target.encoder == teacher:
            return recipe.method.input_of(term).encoder
    return None


def _copied(prepared: Prepared, name: str) -> tuple[TextSide | None, TextTower | None, str]:
    """The text tower of a teacher; where its tokenizer is missing, what it says of that."""
    teacher = prepared.teachers[name]
    try:
        text = teacher.text_tower()
    except UserError as error:
        return None, None, str(error)
    if text is None:
        return None, None, ""
    templates = prepared.recipe.templates or teacher.templates
    return TextSide(encoder=text.spec, scale=teacher.scale, templates=templates), text, ""
