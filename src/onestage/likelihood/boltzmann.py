"""The Boltzmann likelihood of M3I: P(z | guess) = exp(guess . z / tau) / sum over candidates.

Over the batch, the candidates are the targets of all samples: InfoNCE, and on both sides CLIP
(arXiv:2103.00020, fig. 3). Over a queue, they are earlier targets: MoCo. Over tokens, they are the rows of the same
target. Over a table, they are the rows of an embedding table: softmax cross-entropy, that is, supervised
classification. The sum over candidates carries the regulariser: the other candidates are negatives.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import Field

from onestage.likelihood.contrast import BatchLikelihood, SameText, Sides
from onestage.likelihood.queue import QueueLikelihood
from onestage.likelihood.table import TableLikelihood
from onestage.likelihood.tempered import HowSet, Normed, Temper
from onestage.likelihood.tokens import TokensLikelihood
from onestage.spec import spec
from onestage.types import Scope


@final
@spec
class Boltzmann:
    """Softmax over candidates. A field left empty takes the value that is usual for `over`."""

    over: Literal["batch", "queue", "tokens", "table"]
    """The candidates: the targets of the batch, a queue of earlier ones, the rows of the sample's own target, or the
    rows of a table target."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """tau, at the start when it is learned. Empty: 0.07 over the batch and a queue, 0.2 over tokens, 1 over a table."""
    temperature_is: HowSet | None = None
    """Empty: learned over the batch, fixed elsewhere."""
    size: Annotated[int, Field(ge=1)] = 65536
    """Targets that a queue holds."""
    max_scale: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 100.0
    """The largest 1 / tau that learning may reach."""
    same_text: SameText = "positive"
    """What targets of equal `Target.identity` are to one another: positives in equal parts, no candidates, or
    negatives as in plain CLIP."""
    sides: Sides = "both"
    """Guess against targets and target against guesses, averaged; or the first alone."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing over a table: this share of the truth is spread over all classes."""
    normalise: Normed | None = None
    """Whether guess and target are brought to unit length. Empty: none over a table, both elsewhere."""
    kind: Literal["boltzmann"] = "boltzmann"

    def __post_init__(self) -> None:
        if self.over != "table" and self.smoothing:
            raise ValueError(f"smoothing is for over: table; a {self.over} has no classes to spread it over")
        if self.over != "batch" and (self.same_text, self.sides) != ("positive", "both"):
            raise ValueError(f"same_text and sides are for over: batch; leave them out over a {self.over}")
        tau = self._temperature
        if self._how == "learned" and not 1 / self.max_scale <= tau * (1 + 1e-9) <= 1 + 2e-9:
            raise ValueError(
                f"a learned temperature starts between 1 / max_scale = {1 / self.max_scale:g} and 1, not at "
                f"{tau:g}; change temperature or max_scale, or set temperature_is: fixed"
            )

    @property
    def scope(self) -> Scope:
        """Over the batch, a sample's loss depends on the others."""
        return "batch" if self.over == "batch" else "sample"

    @property
    def regulariser(self) -> Literal["negatives"]:
        """What keeps the targets spread: the other candidates."""
        return "negatives"

    def build(self, width: int | None = None) -> BatchLikelihood | QueueLikelihood | TokensLikelihood | TableLikelihood:
        """The loss module; a queue has to know how wide target rows are."""
        if self.over == "batch":
            return BatchLikelihood(self._temper("both"), self.same_text, self.sides)
        if self.over == "tokens":
            return TokensLikelihood(self._temper("both"))
        if self.over == "queue":
            assert width is not None, "a queue is built for targets of a width"
            return QueueLikelihood(self._temper("both"), self.size, width)
        return TableLikelihood(self._temper("none"), self.smoothing)

    def _temper(self, usual: Normed) -> Temper:
        return Temper(
            temperature=self._temperature,
            how=self._how,
            max_scale=self.max_scale,
            normalise=self.normalise or usual,
        )

    @property
    def _temperature(self) -> float:
        usual = {"batch": 0.07, "queue": 0.07, "tokens": 0.2, "table": 1.0}[self.over]
        return usual if self.temperature is None else self.temperature

    @property
    def _how(self) -> HowSet:
        return self.temperature_is or ("learned" if self.over == "batch" else "fixed")
