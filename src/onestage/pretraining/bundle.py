"""What a run leaves beside its checkpoints so that it stands alone as a model; and the live model, while it trains."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from onestage.encoders import ClipText
from onestage.encoders.words import Tokenizer
from onestage.likelihood.tempered import Tempered
from onestage.objective import Ema, Frozen
from onestage.pretraining.directory import licences
from onestage.pretraining.prepare import Prepared
from onestage.pretraining.spec import Recipe
from onestage.targets import Encoded, Table
from onestage.targets.table import TableTarget
from onestage.teachers import BundleSpec, RunTeacher, TextSide, write_bundle
from onestage.teachers.category import CategorySide, TableHead
from onestage.teachers.run import Text


def save_bundle(prepared: Prepared, run: Path) -> None:
    """Write the bundle of a run: the text tower is copied from the teacher, or named where the run trains it."""
    bundle, text = describe(prepared)
    write_bundle(run, bundle, text, prepared.source.classes if bundle.category else ())


def describe(prepared: Prepared) -> tuple[BundleSpec, dict[str, Tensor] | None]:
    """The bundle of a run, and the weights of its text tower where they are copied."""
    recipe, method = prepared.recipe, prepared.recipe.method
    term = method.joint
    side, weights = _text(prepared, term)
    averages = [name for name, role in method.encoders.items() if isinstance(role, Ema) and role.of == recipe.student]
    bundle = BundleSpec(
        encoder=recipe.models[recipe.student],
        name=recipe.student,
        average=averages[0] if averages else None,
        head_of=term,
        head=method.terms[term].predictor if term else None,
        joint=prepared.objective.target(term).width if term else None,
        text=side,
        category=_category(recipe),
        licence=licences(dict(prepared.teachers)),
    )
    return bundle, weights


def live(prepared: Prepared) -> RunTeacher:
    """The model as it is now, to be watched while it trains; its encoder must be in evaluation mode."""
    bundle, weights = describe(prepared)
    objective = prepared.objective
    head = objective.predictor(bundle.head_of) if bundle.head_of else None
    text = _live_text(prepared, bundle, weights) if bundle.text else None
    categories = _live_categories(prepared, bundle.category) if bundle.category else None
    return RunTeacher("live", bundle, objective.encoder(bundle.name), head, text, categories)


def _category(recipe: Recipe) -> CategorySide | None:
    """The first term that teaches the student categories."""
    for name, term in recipe.method.terms.items():
        if isinstance(term.target, Table) and recipe.method.inputs[term.x].encoder == recipe.student:
            return CategorySide(term=name, predictor=term.predictor, likelihood=term.likelihood)
    return None


def _live_categories(prepared: Prepared, side: CategorySide) -> TableHead:
    objective = prepared.objective
    table, likelihood = objective.target(side.term), objective.likelihood(side.term)
    assert isinstance(table, TableTarget) and isinstance(likelihood, Tempered), "a category's term has both"
    return TableHead(objective.predictor(side.term), table, likelihood, prepared.source.classes)


def _text(prepared: Prepared, term: str | None) -> tuple[TextSide | None, dict[str, Tensor] | None]:
    recipe, method = prepared.recipe, prepared.recipe.method
    if term is None:
        return None, None
    target = method.terms[term].target
    assert isinstance(target, Encoded), "a joint term explains an encoder's rows"
    if isinstance(method.encoders[target.encoder], Frozen):
        copied = prepared.teachers[target.encoder].text_weights()
        if copied is None:
            return None, None
        side, weights = copied
        templates = recipe.templates or side.templates
        return TextSide(encoder=side.encoder, scale=side.scale, templates=templates), weights
    encoder = recipe.models[target.encoder]
    if not isinstance(encoder, ClipText):
        return None, None
    side = TextSide(encoder=encoder, trained_as=target.encoder, scale_of=term, templates=recipe.templates)
    return side, None


def _live_text(prepared: Prepared, bundle: BundleSpec, weights: dict[str, Tensor] | None) -> Text:
    side = bundle.text
    assert side is not None
    if side.trained_as is not None:
        return Text(side, prepared.objective.encoder(side.trained_as), Tokenizer(side.encoder.context), side.scale)
    encoder = side.encoder.build(frozenset())
    encoder.load_state_dict(weights or {})
    return Text(side, encoder.eval().to(prepared.device), Tokenizer(side.encoder.context), side.scale)
