"""A recipe: a method plus sizes, data, optimiser and numbers. Executed into a directory it is a run."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import Field

from onestage.data.fast import Decoder
from onestage.encoders import EncoderSpec
from onestage.engine.groups import Optimiser
from onestage.engine.schedule import Rates
from onestage.engine.step import Precision
from onestage.engine.texts import ShortFirst
from onestage.objective import Frozen, Method
from onestage.spec import UserError, spec
from onestage.teachers.serving import Serving
from onestage.views import HideSpec

Positive = Annotated[int, Field(gt=0)]
Task = Literal["zero-shot", "knn", "classify"]


@final
@spec
class Saving:
    """When checkpoints are written, and how many stay."""

    minutes: Annotated[float, Field(gt=0)] = 10.0
    keep: Positive = 3


@final
@spec
class Watch:
    """Evaluation during training, on the validation data: its loss and these tasks go into the metrics."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations; 0 watches nothing."""
    tasks: tuple[Task, ...] = ("zero-shot",)
    samples: Positive = 1000
    hide: HideSpec | None = None
    """How the validation loss hides cells; empty: as training does. UTA's is measured under random halves."""


@final
@spec
class Recipe:
    """Everything a run is determined by.

    Raises:
        UserError: when the length is not given in exactly one way, or the batch cannot be cut.
    """

    name: str
    method: Method
    models: dict[str, EncoderSpec]
    batch: Positive
    """Samples of one step, over all processes and pieces."""
    optimiser: Optimiser
    schedule: Rates
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Length in passes over the data; or give `steps`."""
    steps: Positive | None = None
    data: str | None = None
    val: str | None = None
    teachers: dict[str, str] = Field(default_factory=dict)
    """A reference for each frozen encoder of the method."""
    serving: Serving = Serving()
    """How they answer: live, replayed for some epochs, or from a store."""
    init: str | None = None
    """A model whose weights the encoders start from; or `image=REF,text=REF`, or one of these."""
    anew: tuple[str, ...] = ()
    """Patterns of names (`encoders.student.*.attn.norm.*`) that `init` leaves as they are drawn."""
    repeats: Positive = 1
    """How often each sample stands in a batch, every time with views of its own (repeated augmentation,
    arXiv:1901.09335); a pass over the data then takes so many epochs."""
    accumulate: Positive = 1
    """Pieces that each process cuts its share of the batch into, to need less memory."""
    precision: Precision = "bf16"
    seed: int = 0
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that load data; empty: by the number of cores."""
    decoder: Decoder | None = None
    """What decodes JPEGs: pillow, or fast (the `fast` extra); empty: fast where it is installed."""
    texts: ShortFirst | None = None
    """Which of a sample's texts is read; empty: all of them alike."""
    templates: tuple[str, ...] = ()
    """Prompts that suit the captions, for zero-shot; empty: the teacher's, else CLIP's eighty."""
    saving: Saving = Saving()
    watch: Watch = Watch()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UserError(f"{self.name}: give the length either as epochs or as steps (the other one empty)")
        if self.batch % self.accumulate:
            raise UserError(f"{self.name}: batch {self.batch} cannot be cut into {self.accumulate} equal pieces")

    def total_steps(self, samples: int) -> int:
        """Steps of the whole run over a source of so many samples."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(round(self.epochs * samples / self.batch), 1)

    @property
    def missing_teachers(self) -> list[str]:
        """Frozen encoders of the method that have no reference yet."""
        return [name for name in self.method.named(Frozen) if name not in self.teachers]

    @property
    def student(self) -> str:
        """The encoder that the run is about: that of the first term which sees images, else of the first."""
        terms = list(self.method.terms.values())
        seeing = (term for term in terms if not self.method.reads_text_alone(term))
        return self.method.input_of(next(seeing, terms[0])).encoder
