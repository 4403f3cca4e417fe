"""The verbs about runs: pretrain, evaluate, average, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from tyro.conf import Positional, arg

from onestage.cli.verb import Count, File, Folder, GivenFolder, GivenRun, Reference, Settings, Source, Verb

MOVED = ("resume", "data", "val")
"""Options that say where a run goes on."""


@final
@dataclass(frozen=True)
class Pretrain(Verb):
    """Train a recipe into a new directory, or go on with a run.

    Any setting of the recipe can be changed: --batch 128, --optimiser.groups.all.lr 1e-3, --models.student.depth 6
    (onestage show RECIPE lists them all).
    """

    recipe: Positional[Annotated[str | None, arg(metavar="RECIPE", help_behavior_hint="")]] = None
    """a name (onestage ls recipes) or a YAML file"""
    data: Source = None
    """the training data: a folder of images, scenes or digits"""
    out: Folder = None
    """the directory of the run; it must not hold anything yet"""
    val: Source = None
    """validation data, watched during training where the recipe says so"""
    teacher: Reference = None
    """the frozen teacher, where the method has one: a run or open_clip:..., timm:..., hf:... (onestage ls teachers)"""
    init: Reference = None
    """a model whose weights the encoders start from, by the words of --teacher; or image=REF,text=REF"""
    steps: Count = None
    """length of the run in steps, in place of the recipe's own"""
    seeds: Annotated[str | None, arg(metavar="0,1,2", help_behavior_hint="")] = None
    """several seeds: one run each, in sub-directories of --out"""
    resume: Folder = None
    """a run to go on with, from its newest checkpoint (with --data, if its data were moved; --workers; --accumulate)"""
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

    task: Positional[Annotated[str, arg(metavar="TASK")]]
    """zero-shot, retrieval, knn, linear, classify or dense-probe"""
    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """a run (RUN, RUN@STEP, RUN@best, RUN:ema), open_clip:NAME/FILE or open_clip:local-dir:DIR"""
    data: Annotated[str, arg(metavar="SRC")]
    """the data to evaluate on"""
    train: Source = None
    """labelled data for knn and linear, data with masks for dense-probe; the model's own training data unless given"""
    classes: File = None
    """a file of class names, one a line, in place of the data's own"""
    prompt: Annotated[tuple[str, ...], arg(metavar="TEXT [TEXT ...]", help_behavior_hint="")] = ()
    """templates with {} for the class name; `clip`: CLIP's eighty; empty: the model's own"""
    pool: Annotated[Literal["cls", "mean"] | None, arg(metavar="{cls,mean}", help_behavior_hint="")] = None
    """features: the pooled row (unless given), or the mean of patch rows (where the other was not trained)"""
    baseline: Literal["none", "random"] = "none"
    """random: the same model with its image encoder drawn at random"""
    limit: Count = None
    """at most so many samples"""
    json: File = None
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

    first: GivenRun
    """the run before fine-tuning"""
    second: GivenRun
    """the run after it"""
    out: GivenFolder
    """the directory of the average; it must not hold anything yet"""
    alpha: Annotated[float, arg(metavar="A")] = 0.5
    """the share of the second run, from 0 to 1"""
    tasks: Annotated[tuple[str, ...], arg(metavar="TASK [TASK ...]", help_behavior_hint="")] = ()
    """evaluations of the curve, such as zero-shot linear"""
    data: Annotated[tuple[str, ...], arg(metavar="SRC [SRC ...]", help_behavior_hint="")] = ()
    """the data of the curve; several show what a shift of the data costs"""
    train: Source = None
    """what probes of the curve learn from; the second run's own training data unless given"""
    alphas: Annotated[tuple[float, ...], arg(metavar="A [A ...]")] = tuple(step / 10 for step in range(11))
    """where the curve is measured"""
    limit: Count = None
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

    runs: Positional[Annotated[tuple[str, ...], arg(metavar="RUN [RUN ...]", help_behavior_hint="")]]
    """run directories"""
    out: Folder = None
    """where to write; report.html in the first run unless given"""
    data: Source = None
    """where the pictures come from; the run's validation data unless given"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(f"wrote {api.report(list(self.runs), out=self.out, data=self.data)}")
        return 0
