"""`onestage bench table`: rows of the table under one budget and one backbone, judged by the same probes.

Every row trains the same number of steps on the same batches with the same encoder; beside them stand the encoder drawn
at random and supervised pre-training. Each (row, seed) is a run and a result of its own, so that a bench that was
interrupted goes on where it was when it is typed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, final

import torch
from pydantic import Field

from onestage.bench.summary import spread, written
from onestage.bench.trained import trained
from onestage.bench.variants import (
    Variant,
    fixed,
    fixed_chain,
    methods_of,
    needs_categories,
    needs_codes,
    needs_teacher,
    shared,
    variants,
)
from onestage.data import open_source
from onestage.evaluation.probes import SPLITS, probe
from onestage.methods import METHODS
from onestage.objective import Frozen
from onestage.pretraining import Chain, Recipe, Watch, finished
from onestage.pretraining.seeds import parse_seeds
from onestage.recipes.chains import CHAINS
from onestage.recipes.tiny import tiny
from onestage.roles import Source
from onestage.spec import UserError, spec, to_yaml
from onestage.storage import write_atomic
from onestage.teachers import load, load_random

RANDOM = "random"
SUPERVISED = "supervised"


@final
@spec
class TableBench:
    """Rows of the table under one budget and one backbone: linear, kNN and dense probe, zero-shot, and their cost."""

    data: str = "scenes"
    """Labelled training data; rows that read captions need them too."""
    val: str | None = None
    """What the rows are judged on; the test split of built-in data unless given."""
    rows: str = "all"
    """Rows with commas between them (onestage ls methods), sums (uta+0.5*clip) and chains (chain_beit3) too; all: every
    row the data allow."""
    vary: str | None = None
    """PATH=VALUE|VALUE: a setting of the recipe (onestage show) and its values; every row is trained with each."""
    set: str | None = None
    """PATH=VALUE|PATH=VALUE: settings that every row has, such as models.student.patch=4, another backbone for all."""
    seeds: str = "0"
    """Seeds with commas between them: a run for each row and seed."""
    steps: Annotated[int, Field(ge=1)] = 900
    """Length of every run."""
    teacher: str | None = None
    """What rows with a frozen teacher learn from; clip_tiny trained on the same data unless given."""
    codes: str | None = None
    """The run whose code book rows of codes explain; vqkd_tiny trained on the same data, from that teacher, unless
    given."""
    categories: str | None = None
    """The model whose categories are distilled; supervised_tiny trained on the same data unless given."""
    probed: Annotated[int, Field(ge=10)] = 4000
    """Images at most that a probe learns from, and that it is judged on."""
    out: str = "runs/table"
    """The folder of runs and results; typed again with it, the bench goes on."""

    def run(self) -> Iterator[dict[str, Any]]:
        """A line for each run that had to be trained first, one for each (row, seed), and then one for each row with
        its mean and spread over seeds."""
        train, data = self._sources()
        rows, seeds, out = self._rows(train), parse_seeds(self.seeds), Path(self.out)
        settings = shared(self.set)
        asked = [Variant(SUPERVISED), Variant(RANDOM), *variants(rows, self.vary)]
        teacher, codes, before = self.teacher, self.codes, []
        coded = codes is None and any(needs_codes(row) for row in rows)
        if teacher is None and (coded or any(needs_teacher(row) for row in rows)):
            teacher = self._first(train, out, "teacher", "clip", None)
            before.append({"case": "table", "teacher": teacher, "seconds": _read(out / "teacher.json")["seconds"]})
        if coded:
            codes = self._first(train, out, "codes", "vqkd", teacher)
            before.append({"case": "table", "codes": codes, "seconds": _read(out / "codes.json")["seconds"]})
        categories = self.categories
        if categories is None and any(needs_categories(row) for row in rows):
            categories = self._first(train, out, "categories", SUPERVISED, None)
            seconds = _read(out / "categories.json")["seconds"]
            before.append({"case": "table", "categories": categories, "seconds": seconds})
        yield from before
        lines: list[dict[str, Any]] = []
        began, todo = time.monotonic(), [(one, seed) for seed in seeds for one in asked]
        for number, (one, seed) in enumerate(todo):
            _say(f"bench table: {one.name}, seed {seed} ({number + 1} of {len(todo)}){_left(began, number, len(todo))}")
            folder = out / (SUPERVISED if one.row == RANDOM else one.folder) / f"seed_{seed}"
            if one.row in CHAINS:
                chain = fixed_chain(one, self.steps, seed, self._pair(), self.probed, settings)
                made = self._chain(one, chain, folder, data)
            else:
                row = Variant(SUPERVISED) if one.row == RANDOM else one
                recipe = fixed(row, self.steps, seed, self.data, teacher, settings, codes, categories)
                made = [self._one(one, recipe, folder, (train, data))]
            lines += made
            yield from made
        means = spread(lines)
        write_atomic(out / "table.md", written(means, before))
        _say(f"bench table: {out / 'table.md'}")
        yield from means

    def _sources(self) -> tuple[Source, Source]:
        val = self.val or SPLITS.get(self.data)
        if val is None:
            raise UserError(f"bench table: give --val SRC, labelled data that the rows of {self.data} are judged on")
        train, data = open_source(self.data), open_source(val)
        for source in (train, data):
            if not source.has_labels:
                raise UserError(f"bench table: {source.name} has no labels, which linear and kNN probes need")
        return train, data

    def _rows(self, train: Source) -> list[str]:
        """The rows asked for but the two that are always there."""
        if self.rows == "all":
            able = [row for row in METHODS if train.has_texts or not self._reads_texts(row)]
            return [name for name in able if name != SUPERVISED]
        rows = [row.strip() for row in self.rows.split(",") if row.strip()]
        for row in rows:
            if row != RANDOM and self._reads_texts(row) and not train.has_texts:
                raise UserError(f"bench table: {row} learns from captions, or from a teacher that needs them")
        return list(dict.fromkeys(row for row in rows if row not in {SUPERVISED, RANDOM}))

    def _reads_texts(self, row: str) -> bool:
        """Whether a row needs captions, itself or for the teacher that is not given."""
        return any(method.needs_texts for method in methods_of(row)) or (
            not self.teacher and (needs_teacher(row) or (needs_codes(row) and not self.codes))
        )

    def _first(self, train: Source, out: Path, name: str, row: str, teacher: str | None) -> str:
        """A run on the same data that rows learn from, trained once."""
        if METHODS[row].needs_texts and not train.has_texts:
            raise UserError(f"bench table: {train.name} has no captions to train a teacher with; give --teacher REF")
        _say(f"bench table: {row}_tiny, which rows learn from")
        made = dataclasses.replace(tiny([(1.0, METHODS[row])], "demo"), data=self.data, watch=Watch())
        made = dataclasses.replace(made, teachers=dict.fromkeys(made.method.named(Frozen), teacher or ""))
        cost = trained(made, out / name, out / f"{name}.yaml")
        if not (out / f"{name}.json").exists():
            write_atomic(out / f"{name}.json", json.dumps(cost._asdict()) + "\n")
        return str(out / name)

    def _chain(self, one: Variant, made: Chain, folder: Path, data: Source) -> list[dict[str, Any]]:
        """The lines of a chain and a seed, one for each stage; the last one stands for the chain."""
        seed, digest = made.stages[0].recipe.seed, _digest(f"{to_yaml(made)}\n{one.name} {data.fingerprint()}")
        path = Path(self.out) / f"{one.folder}@{seed}.json"
        if path.exists():
            return _held(path, digest)["lines"]
        cost = trained(made, folder, folder.with_suffix(".yaml"))
        stages, lines = finished(folder), []
        for number, stage in enumerate(stages, start=1):
            last = number == len(stages)
            paid = cost._asdict() if last else {"seconds": stage.seconds, "peak_mib": None}
            row = {"case": "table", "row": one.name if last else f"{one.name}/{stage.run}", "seed": seed}
            lines.append(row | paid | (stage.probes or {}))
        write_atomic(path, json.dumps({"digest": digest, "lines": lines}) + "\n")
        return lines

    def _pair(self) -> tuple[str, str]:
        """What is learned from and what is judged on, as they are typed."""
        return self.data, self.val or SPLITS[self.data]

    def _one(self, one: Variant, recipe: Recipe, folder: Path, sources: tuple[Source, Source]) -> dict[str, Any]:
        """The line of a row and a seed: read where it is there, else made."""
        digest = _digest(f"{to_yaml(recipe)}\n{one.name} {sources[1].fingerprint()} {self.probed}")
        seed, path = recipe.seed, Path(self.out) / f"{one.folder}@{recipe.seed}.json"
        if path.exists():
            return _held(path, digest)["line"]
        line: dict[str, Any] = {"case": "table", "row": one.name, "seed": seed}
        if one.row == RANDOM:
            model = load_random(str(folder), seed, _device())
            line |= {"seconds": 0.0, "peak_mib": None}
        else:
            line |= trained(recipe, folder, folder.with_suffix(".yaml"))._asdict()
            model = load(str(folder), _device())
        line |= probe(model, *sources, self.probed)._asdict()
        write_atomic(path, json.dumps({"digest": digest, "line": line}) + "\n")
        return line


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _digest(told: str) -> str:
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _held(path: Path, digest: str) -> dict[str, Any]:
    """A result that was written before, of the same settings and data."""
    held = _read(path)
    if held.get("digest") != digest:
        raise UserError(f"{path}: the result of other settings or data; choose another --out")
    return held


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _left(began: float, done: int, total: int) -> str:
    """How long the rest takes at the pace so far."""
    return f", about {(time.monotonic() - began) / done * (total - done) / 60:.0f} min left" if done else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
