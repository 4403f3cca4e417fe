"""From a recipe to everything a run needs in memory."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import torch

from onestage.data import Quarantine, open_source
from onestage.data.fast import chosen
from onestage.distributed import neighbours, rank, synchronise, world
from onestage.encoders import ClipText, Multiway
from onestage.encoders.words import Tokenizer
from onestage.engine.loader import Batches
from onestage.engine.optimiser import Optimisers
from onestage.engine.pieces import check_slices
from onestage.engine.step import Step
from onestage.objective import Method, Objective, Trained, asks
from onestage.pretraining.resolve import answers_of, check_categories, resolve
from onestage.pretraining.spec import Recipe
from onestage.roles import Source
from onestage.spec import UserError
from onestage.teachers import FORMS, AnyTeacher, load
from onestage.teachers.serving import Served, Server, Setting, check_masks, serve
from onestage.teachers.text import ClipWords, reader

ANSWERS = "answers"
"""Of a run's directory: what is kept of its teachers' answers while it trains."""


class Prepared(NamedTuple):
    """A run in memory, before its first step."""

    recipe: Recipe
    source: Source
    val: Source | None
    teachers: dict[str, AnyTeacher]
    objective: Objective
    optimisers: Optimisers
    step: Step
    server: Server
    batches: Batches
    total: int
    device: torch.device


def prepare(recipe: Recipe, quarantine: Path | None) -> Prepared:
    """Open the data, load the teachers, build the objective and the optimiser.

    Raises:
        UserError: for whatever of it cannot be had, saying what to type.
    """
    check_slices(recipe.batch, world(), recipe.accumulate)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = open_data(recipe)
    val = open_source(recipe.val) if recipe.val else None
    teachers = load_teachers(recipe, device)
    check_categories(recipe.method, dict(teachers), source)
    recipe = dataclasses.replace(resolve(recipe, dict(teachers)), decoder=chosen(recipe.decoder))
    torch.manual_seed(recipe.seed)
    objective = Objective(recipe.method, recipe.models, answers_of(dict(teachers)), len(source.classes) or None)
    synchronise(objective.to(device))
    objective.training_mode()
    optimisers = Optimisers(objective.named_parameters(), recipe.optimiser, recipe.batch)
    grids = {name: objective.encoder(name).grid for name in recipe.method.named(Trained)}
    total = recipe.total_steps(len(source))
    served = _serve(recipe, teachers, source, quarantine.parent if quarantine else None, device)
    batches = Batches(
        source,
        recipe.method,
        grids,
        recipe.batch,
        recipe.seed,
        _tokenizer(recipe, teachers),
        Quarantine(quarantine),
        recipe.texts,
        total,
        rank(),
        world(),
        decoder=chosen(recipe.decoder),
        planning=served.planning,
        masks=recipe.serving.masks,
        repeats=recipe.repeats,
    )
    step = Step(objective, optimisers, served.server, recipe.precision, recipe.accumulate, device)
    return Prepared(recipe, source, val, teachers, objective, optimisers, step, served.server, batches, total, device)


def setting_of(recipe: Recipe, teachers: dict[str, AnyTeacher], samples: int, device: torch.device) -> Setting:
    """What a resolved recipe asks of its teachers."""
    return Setting(
        asks(recipe.method),
        dict(teachers),
        samples,
        recipe.seed,
        recipe.precision,
        chosen(recipe.decoder),
        device,
        recipe.method.views,
    )


def _serve(
    recipe: Recipe, teachers: dict[str, AnyTeacher], source: Source, run: Path | None, device: torch.device
) -> Served:
    """What answers for the teachers, and the geometry of what they see."""
    check_masks(recipe.method, recipe.serving.masks, recipe.batch // (world() * recipe.accumulate))
    setting = setting_of(recipe, teachers, len(source), device)
    return serve(recipe.serving, setting, None if run is None else run / ANSWERS)


def open_data(recipe: Recipe) -> Source:
    """The training source, with the annotations that the method needs.

    Raises:
        UserError: when it is not given, cannot be opened, or lacks texts or labels.
    """
    if recipe.data is None:
        raise UserError(f"{recipe.name}: no data. Add --data FOLDER, or --data scenes for the built-in pictures.")
    source = open_source(recipe.data)
    if recipe.method.needs_texts and not source.has_texts:
        raise UserError(
            f"{recipe.data}: method {recipe.method.name} learns from captions, but this source has none. "
            "Put a metadata.jsonl, .csv or .parquet with file_name and text into the folder."
        )
    if recipe.method.needs_labels and not source.has_labels:
        raise UserError(
            f"{recipe.data}: method {recipe.method.name} learns from categories, but this source has no labels. "
            "Use one sub-folder for each class, or a label in metadata.jsonl."
        )
    return source


def stills(method: Method, source: Source) -> str:
    """What becomes of pictures where a method learns from clips; empty where there are clips, or none are read."""
    if source.has_clips or all(view.frames is None for view in method.views.values()):
        return ""
    return (
        f"{source.name} has no clips: each picture is read as one in which nothing moves. Give video:FOLDER, or "
        "scenes-clips for built-in ones"
    )


def load_teachers(recipe: Recipe, device: torch.device) -> dict[str, AnyTeacher]:
    """The frozen encoders of the method.

    Raises:
        UserError: naming the two commands to type when there is none, or a space that a teacher lacks.
    """
    if recipe.missing_teachers:
        first = "supervised_tiny" if recipe.method.needs_categories else "clip_tiny"
        raise UserError(
            f"{recipe.name} learns from a frozen teacher and was given none. Train one and use it:\n"
            f"  onestage pretrain {first} --data scenes --out runs/teacher\n"
            f"  onestage pretrain {recipe.name} --data {recipe.data or 'scenes'} --teacher runs/teacher "
            "--out runs/student\n"
            f"A teacher is {FORMS}."
        )
    teachers = {name: load(reference, device) for name, reference in recipe.teachers.items()}
    for ask in asks(recipe.method):
        teacher = teachers[ask.encoder]
        teacher.width(ask.space)  # says so where it lacks that space
        if ask.view == "text":
            reader(teacher.reference, teacher.text_tower(), _context(recipe))
    return teachers


def _tokenizer(recipe: Recipe, teachers: dict[str, AnyTeacher]):  # noqa: ANN202
    """Texts to words for the method's text encoder; None where it needs no texts, and then none is read."""
    if not recipe.method.needs_texts:
        return None
    return Tokenizer(_context(recipe), _reads_beyond(recipe, teachers)).words


def _context(recipe: Recipe) -> int:
    """How many words of a text are read."""
    texts = _readers(recipe)
    if not texts:
        raise UserError(f"{recipe.name}: method {recipe.method.name} reads texts, but models has no text encoder")
    return texts[0].context


def _readers(recipe: Recipe) -> list[ClipText | Multiway]:
    return [model for model in recipe.models.values() if isinstance(model, (ClipText, Multiway))]


def _reads_beyond(recipe: Recipe, teachers: dict[str, AnyTeacher]) -> bool:
    """Whether what stands behind a text's end is read: by an encoder, or by a term that guesses the whole context."""
    method = recipe.method
    towers = [teachers[ask.encoder].text_tower() for ask in asks(method) if ask.view == "text"]
    specs = [*_readers(recipe), *(tower.spec for tower in towers if isinstance(tower, ClipWords))]
    return any(isinstance(one, ClipText) and one.reads_beyond for one in specs) or any(
        term.predictor.reaches != "rows" or term.projector is not None
        for term in method.terms.values()
        if any(part.of == "text" for part in method.input_of(term).parts.values())
    )


def default_workers() -> int:
    """Loading processes: one for each four cores of this process, at most eight."""
    return min(max(_cores() // 4, 1), 8)


def share_cores(workers: int) -> None:
    """Without a GPU, leave a core to each loading process: threads that compete for a core stall one another.

    What `OMP_NUM_THREADS` says holds.
    """
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(_cores() - workers, 1))


def _cores() -> int:
    """This process's share of the machine."""
    return max((os.cpu_count() or 1) // neighbours(), 1)
