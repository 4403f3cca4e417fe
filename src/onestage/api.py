"""The verbs as functions. The command line calls these and nothing else."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onestage
from onestage import pretraining
from onestage import recipes as named
from onestage.api_average import average as average
from onestage.api_data import data_check as data_check
from onestage.api_data import data_cut as data_cut
from onestage.api_data import data_index as data_index
from onestage.api_data import data_pack as data_pack
from onestage.api_data import data_show as data_show
from onestage.api_evaluate import bank_of, folder_for, known_task, options_of
from onestage.api_given import Given, make_chain, moved, refuse_for_chain, runs_of
from onestage.api_given import make_recipe as make_recipe
from onestage.api_teachers import plan as plan
from onestage.api_teachers import say
from onestage.api_teachers import teach as teach
from onestage.bench import CASES
from onestage.bench import bench as bench
from onestage.data import open_source
from onestage.engine.together import joined, together
from onestage.evaluation import EVALUATIONS, result
from onestage.methods import METHODS
from onestage.pretraining import check_recipe, pictures_of
from onestage.pretraining.seeds import parse_seeds, start_seeds
from onestage.recipes import chains, describe
from onestage.recipes.chains import chain_line, chain_text
from onestage.spec import UserError, from_plain, to_yaml
from onestage.storage import write_atomic
from onestage.teachers import COLUMNS, REFERENCES, TABLE, load, load_random


def ls(
    what: Literal["recipes", "methods", "teachers", "evaluations", "sources", "benches", "chains"] = "recipes",
) -> str:
    """What there is, as text for people."""
    if what == "methods":
        return describe.methods_table(METHODS, named.names_of_methods())
    if what == "teachers":
        return describe.columns(list(REFERENCES)) + "\n\n" + describe.columns([COLUMNS, *TABLE])
    if what == "evaluations":
        return describe.columns([(name, describe.first_line(task)) for name, task in EVALUATIONS.items()])
    if what == "chains":
        return describe.columns([(name, chain_line(chains.chain(name))) for name in chains.names()])
    if what == "sources":
        return describe.columns(list(describe.SOURCES.items()))
    if what == "benches":
        return describe.options_text(CASES)
    return describe.columns([(name, describe.recipe_line(named.recipe(name))) for name in named.names()])


def show(recipe: Given, settings: Mapping[str, Any] | None = None) -> str:
    """A recipe in full: resolved YAML, the table of its terms, parameters, and FLOPs per sample. Of a chain, its
    stages and their terms."""
    if chains.is_named(str(recipe)):
        return chain_text(make_chain(str(recipe), settings=settings))
    return describe.recipe_text(make_recipe(recipe, settings=settings))


def cp(recipe: Given, file: str | Path) -> Path:
    """Write a recipe to a new YAML file.

    Raises:
        UserError: when the file exists or cannot be written.
    """
    path = Path(file)
    if path.exists():
        raise UserError(f"{path}: exists already; nothing is overwritten. Choose another name.")
    text = to_yaml(chains.chain(str(recipe)) if chains.is_named(str(recipe)) else make_recipe(recipe))
    folder_for(path)
    write_atomic(path, text)
    return path


def check(
    recipe: Given,
    *,
    data: str | None = None,
    val: str | None = None,
    teacher: str | None = None,
    init: str | None = None,
    classes: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Every mistake that would waste hours, without training. An empty list: ready to train."""
    made = make_recipe(recipe, data=data, val=val, teacher=teacher, init=init, settings=settings)
    return check_recipe(made, Path(classes) if classes else None)


def pretrain(
    recipe: Given,
    *,
    out: str | Path,
    data: str | None = None,
    val: str | None = None,
    teacher: str | None = None,
    init: str | None = None,
    steps: int | None = None,
    seeds: str | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Train a recipe into a new directory; with several seeds, one run each in sub-directories `seed_N`; of a chain,
    one run for each stage in sub-directories `N_STAGE`.

    In processes that torchrun started, all of them train one run, each on its slice of every batch.

    Returns:
        The directory.

    Raises:
        UserError: for a mistake that can be known beforehand; nothing is written then.
    """
    folder = Path(out)
    if chains.is_named(str(recipe)):
        refuse_for_chain(str(recipe), teacher=teacher, init=init, seeds=seeds)
        with joined():
            chain = together(lambda: make_chain(str(recipe), data=data, val=val, steps=steps, settings=settings))
            pretraining.start_chain(chain, folder, sys.argv, say)
        return folder
    with joined():
        made = together(
            lambda: make_recipe(recipe, data=data, val=val, teacher=teacher, init=init, steps=steps, settings=settings)
        )
        if seeds is None:
            pretraining.start(made, folder, sys.argv, say)
        else:
            start_seeds(made, folder, together(lambda: parse_seeds(seeds)), sys.argv, say)
    return folder


def resume(
    run: str | Path, *, data: str | None = None, val: str | None = None, settings: Mapping[str, Any] | None = None
) -> Path:
    """Go on with a run from its newest complete checkpoint, or with a chain.

    Args:
        data, val: where the same data are now, if they were moved (not of a chain).
        settings: `workers` and `accumulate`, where they should be others on this machine.

    Raises:
        UserError: when it is no run, a setting would change what is learned, or data are not those it began with.
    """
    with joined():
        there = together(lambda: moved(data=data, val=val, settings=settings))
        if pretraining.is_chain(Path(run)):
            if data is not None or val is not None:
                raise UserError(
                    f"--data and --val: {run} is a chain, whose later stages could not tell other data from its own; "
                    "put its data, or a link to them, where they were"
                )
            pretraining.resume_chain(Path(run), sys.argv, say, there)
        else:
            pretraining.resume(Path(run), say, there)
    return Path(run)


def evaluate(
    task: str,
    model: str | Path,
    *,
    data: str,
    train: str | None = None,
    classes: str | None = None,
    prompt: Sequence[str] = (),
    pool: Literal["cls", "mean"] | None = None,
    baseline: Literal["none", "random"] = "none",
    limit: int | None = None,
    json: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model under one protocol.

    Returns:
        `{"task", "model", "data", "metrics", "samples", "seconds", "version"}`.

    Raises:
        UserError: for an unknown task, a model or data that cannot be used, or a file that cannot be written.
    """
    known_task(task)
    if json is not None:
        folder_for(Path(json))
    began = time.monotonic()
    reference = str(model)
    frozen = load(reference) if baseline == "none" else load_random(reference, seed=0)
    source = open_source(data)
    bank = bank_of(task, reference, train)
    evaluator = from_plain(EVALUATIONS[task], options_of(task, frozen, classes, prompt, pool, limit), task)
    metrics = evaluator.run(frozen, source, bank)
    samples = int(metrics.pop("samples", len(source)))
    name = reference if baseline == "none" else f"{reference} (random image encoder)"
    answer = result(task, name, data, metrics, samples, time.monotonic() - began, onestage.__version__)
    if json is not None:
        write_atomic(Path(json), jsonlib.dumps(answer, indent=1) + "\n")
    return answer


def table(answer: Mapping[str, Any]) -> str:
    """An evaluation's result as text for people."""
    head = f"{answer['task']} of {answer['model']} on {answer['data']} ({answer['samples']} samples)"
    rows = [(name, f"{value:.4f}") for name, value in answer["metrics"].items()]
    return head + "\n" + describe.columns(rows)


def report(runs: Sequence[str | Path], *, out: str | Path | None = None, data: str | None = None) -> Path:
    """Write one self-contained HTML file of a run, or of several beside one another; a chain counts as its stages."""

    from onestage.report import write_report

    given = [Path(run) for run in runs]
    chained = {folder.name: folder for folder in given if pretraining.is_chain(folder)}
    folders = [run for folder in given for run in runs_of(folder)]
    path = Path(out) if out else given[0] / "report.html"
    stages = {name: [stage._asdict() for stage in pretraining.finished(folder)] for name, folder in chained.items()}
    single = [folder for folder in given if folder not in chained.values()]
    write_report(folders, path, pictures_of(folders[0], data), stages, single)
    return path
