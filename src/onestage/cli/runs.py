"""The verbs about runs: pretrain, evaluate, average, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from tyro.conf import Positional

from onestage.cli.verb import Settings, Verb

MOVED = ("resume", "data", "val")
"""Options that say where a run goes on."""


@final
@dataclass(frozen=True)
class Pretrain(Verb):
    """Train a recipe into a new directory, or go on with a run.

    Any setting of the recipe can be changed: --batch 128, --optimiser.groups.all.lr 1e-3, --models.student.depth 6
    (onestage show RECIPE lists them all).
    """

    recipe: Positional[str | None] = None
    """a name (onestage ls recipes) or a YAML file"""
    data: str | None = None
    """the training data: a folder of images, scenes or digits"""
    out: str | None = None
    """the directory of the run; it must not hold anything yet"""
    val: str | None = None
    """validation data, watched during training where the recipe says so"""
    teacher: str | None = None
    """the frozen teacher, where the method has one: a run, open_clip:..., timm:... or hf:... (onestage ls teachers)"""
    init: str | None = None
    """a model whose weights the encoders start from, by the words of --teacher; or image=REF,text=REF"""
    steps: int | None = None
    """length of the run in steps, in place of the recipe's own"""
    seeds: str | None = None
    """several seeds, such as 0,1,2: one run each, in sub-directories of --out"""
    resume: str | None = None
    """a run to go on with, from its newest checkpoint; --data where its data were moved, --workers and --accumulate
    may be given anew"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        from onestage import api
        from onestage.spec import UserError

        if self.resume is not None:
            given = [name for name, value in vars(self).items() if value is not None and name not in MOVED]
            if given:
                raise UserError(
                    f"--resume {self.resume}: goes on with a run as it was started, so it takes no {given[0]}; only "
                    "--data and --val where its data were moved, --workers and --accumulate. Type: onestage pretrain "
                    f"--resume {self.resume}"
                )
            api.resume(self.resume, data=self.data, val=self.val, settings=settings)
            return 0
        if self.recipe is None or self.out is None:
            raise UserError("pretrain needs a recipe and --out DIR (or --resume DIR). See: onestage ls recipes")
        api.pretrain(
            self.recipe,
            out=self.out,
            data=self.data,
            val=self.val,
            teacher=self.teacher,
            init=self.init,
            steps=self.steps,
            seeds=self.seeds,
            settings=settings,
        )
        return 0


@final
@dataclass(frozen=True)
class Evaluate(Verb):
    """Evaluate a model: zero-shot, retrieval, knn, linear, classify or dense-probe.

    Data for dense-probe have masks: scenes, or masks:IMAGES,MASKS[,void=N].
    """

    task: Positional[str]
    """zero-shot, retrieval, knn, linear, classify or dense-probe"""
    model: Positional[str]
    """a run (RUN, RUN@STEP, RUN@best, RUN:ema), open_clip:NAME/FILE or open_clip:local-dir:DIR"""
    data: str
    """the data to evaluate on"""
    train: str | None = None
    """labelled data for knn and linear, data with masks for dense-probe; the model's own training data unless given"""
    classes: str | None = None
    """a file of class names, one a line, in place of the data's own"""
    prompt: tuple[str, ...] = ()
    """templates with {} for the class name; `clip`: CLIP's eighty; empty: the model's own"""
    pool: Literal["cls", "mean"] | None = None
    """the features of zero-shot, retrieval, knn and linear: the pooled row, or the mean of the patch rows; by
    default the pooled row, or for knn and linear the mean where a run did not train it"""
    baseline: Literal["none", "random"] = "none"
    """random: the same model with its image encoder drawn at random"""
    limit: int | None = None
    """at most so many samples"""
    json: str | None = None
    """also write the result to this file"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        result = api.evaluate(
            self.task,
            self.model,
            data=self.data,
            train=self.train,
            classes=self.classes,
            prompt=self.prompt,
            pool=self.pool,
            baseline=self.baseline,
            limit=self.limit,
            json=self.json,
        )
        print(api.table(result))
        return 0


@final
@dataclass(frozen=True)
class Average(Verb):
    """Average the weights of two runs of one architecture: (1 - alpha) of the first and alpha of the second, as a run
    of its own (WiSE-FT). With --tasks and --data, models along the way are evaluated, and its report draws the curve.
    """

    first: Positional[str]
    """the run before fine-tuning"""
    second: Positional[str]
    """the run after it"""
    out: str
    """the directory of the average; it must not hold anything yet"""
    alpha: float = 0.5
    """the share of the second run, from 0 to 1"""
    tasks: tuple[str, ...] = ()
    """evaluations of the curve, such as zero-shot linear"""
    data: tuple[str, ...] = ()
    """the data of the curve; several show what a shift of the data costs"""
    train: str | None = None
    """what probes of the curve learn from; the second run's own training data unless given"""
    alphas: tuple[float, ...] = tuple(step / 10 for step in range(11))
    """where the curve is measured"""
    limit: int | None = None
    """at most so many samples of the data of the curve"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        api.average(
            self.first,
            self.second,
            out=self.out,
            alpha=self.alpha,
            tasks=self.tasks,
            data=self.data,
            train=self.train,
            alphas=self.alphas,
            limit=self.limit,
        )
        print(f"wrote {self.out}")
        return 0


@final
@dataclass(frozen=True)
class Report(Verb):
    """Write one self-contained HTML file of a run, or of several beside one another."""

    runs: Positional[tuple[str, ...]]
    """run directories"""
    out: str | None = None
    """where to write; report.html in the first run unless given"""
    data: str | None = None
    """where the pictures come from; the run's validation data unless given"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(f"wrote {api.report(list(self.runs), out=self.out, data=self.data)}")
        return 0
