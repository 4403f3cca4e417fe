"""The abstract parts of the house. Every class here is abstract; everything that fills one is final.

Rooms know one another only through these roles and the bundles of `types`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from onestage.planned import Erased as Erased
from onestage.planned import Plan as Plan
from onestage.sample import VOID as VOID
from onestage.sample import BadSample as BadSample
from onestage.sample import Mask as Mask
from onestage.sample import Picture as Picture
from onestage.sample import Sample as Sample
from onestage.sample import Source as Source
from onestage.types import Also, Grid, Images, Piece, Scope, Target, Tokens, View, Wanted

Space = Literal["joint", "raw", "codes", "categories"]
"""`joint`: the space that images and texts share; `raw`: the encoder's own normed rows before that projection;
`codes`: for each cell one number, that of its code in the encoder's code book; `categories`: for the image alone a
score of each category that the encoder has learned."""


ALONE = Also()
"""Nothing beside the rows."""


class ViewMaker(ABC):
    """t_x or t_y: how a view is cut from a sample."""

    size: int | None

    @property
    @abstractmethod
    def alters(self) -> frozenset[str]:
        """Augmentations it may apply, in the words of `Source.keeps_captions`."""

    @abstractmethod
    def plan(self, rng: np.random.Generator, width: int, height: int) -> Plan: ...

    @abstractmethod
    def rows(self, plan: Plan) -> int:
        """Of how many of the source's rows, from the top, the view is made: what lies below need not be decoded."""

    @abstractmethod
    def cut(self, pixels: np.ndarray, plan: Plan, out: np.ndarray) -> None:
        """uint8 (height, width, 3), of which rows below `rows` may be missing, to `out`, uint8 (3, size, size)."""


class Hide(ABC):
    """Which cells of a grid an input withholds: always the same number of them for one grid, where they are dropped."""

    @abstractmethod
    def count(self, grid: Grid) -> int:
        """How many cells are hidden, at most."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, grid: Grid) -> np.ndarray:
        """bool (cells,), True where hidden."""


class HideLater(ABC):
    """Which cells an input withholds, by what a frozen encoder says of the view: drawn inside the step, from noise that
    the loader drew. Always the same number of them for one grid."""

    by: str
    """The name of that encoder."""

    @abstractmethod
    def count(self, grid: Grid) -> int:
        """How many cells are hidden."""

    @abstractmethod
    def noise(self, rng: np.random.Generator, grid: Grid) -> np.ndarray:
        """float32 (cells,), uniform in [0, 1)."""

    @abstractmethod
    def choose(self, noise: Float[Tensor, "b g"], answer: Tokens, grid: Grid) -> Bool[Tensor, "b g"]:
        """True where hidden."""


class HideText(ABC):
    """Which words of a text an input withholds, drawn in the step from the loader's noise: the text says how many."""

    @abstractmethod
    def count(self, grid: Grid) -> int:
        """How many words are hidden at most, of a context as long as a grid of one line."""

    @abstractmethod
    def noise(self, rng: np.random.Generator) -> np.ndarray:
        """float32, uniform in [0, 1), one a place of the longest context."""

    @abstractmethod
    def choose(self, noise: Float[Tensor, "b l"], words: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """True where hidden; 0 is the number of no word."""


class Encoder(nn.Module, ABC):
    """f_theta or f_phi: backbone and projector."""

    width: int
    grid: Grid
    size: int
    """Side of the square images it expects, in pixels (0 for text)."""
    frames: int = 1
    """Of a clip, that it expects; a still picture shows the same in all of them."""
    tubelet: int = 1
    """How many frames after one another a cell of its grid is made of; a clip's cells lie one below another in it."""

    @abstractmethod
    def forward(self, parts: dict[str, Piece]) -> Tokens: ...

    @abstractmethod
    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block, which outputs of blocks are before; None where it has none of its own."""


class Projector(nn.Module, ABC):
    """The part of f_theta that only training uses: tokens in, tokens out, of `width` values."""

    width: int

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens: ...


class Stateful(ABC):
    """What changes with the steps of a run, and only with those that are taken."""

    @abstractmethod
    def after_step(self) -> None:
        """Commit what changes after an optimiser's step."""

    @abstractmethod
    def after_skip(self) -> None:
        """Forget what a skipped step would have committed."""


class Scheduled(ABC):
    """What follows the progress of a run beside its steps."""

    @abstractmethod
    def advance(self, progress: float) -> None:
        """The share of the run's steps that are taken, 0 to 1."""


class TargetMaker(nn.Module, Stateful, ABC):
    """Turns what a target is made of into z_y."""

    width: int

    @abstractmethod
    def forward(
        self, source: View | Tokens | Int[Tensor, " b"], wanted: Wanted, identity: Int[Tensor, " b"] | None
    ) -> Target: ...


class Predictor(nn.Module, ABC):
    """f_psi: guesses the wanted target rows from z_x, knowing both geometries."""

    @abstractmethod
    def forward(self, tokens: Tokens, wanted: Wanted) -> Float[Tensor, "b m k"]: ...


class Committing(Predictor, Stateful, ABC):
    """A predictor with a state that changes after steps, and a cost of its own beside the term's likelihood."""

    @abstractmethod
    def cost(self) -> Float[Tensor, "b g"]:
        """The cost of every row of the last guess; its mean is added to the term."""

    @abstractmethod
    def perplexity(self) -> Float[Tensor, ""]:
        """Over how many alternatives its state is spread, to be watched."""


class Likelihood(nn.Module, Stateful, ABC):
    """-log P_hat(z_y | z_hat), averaged over the rows that count, in fp32.

    Of several processes each sees its own rows, and returns what makes the mean over ranks the loss of the global
    batch: see `onestage.distributed`.
    """

    scope: Scope
    """Whether a sample's loss depends on the other samples of the batch."""

    @abstractmethod
    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]: ...

    @abstractmethod
    def candidates(self, target: Target) -> int:
        """Over how many candidates the likelihood is normalised; 0 where it is a density. ln of it minus the loss
        bounds the mutual information from below, in nats."""


class Shared(Likelihood, ABC):
    """A likelihood with a cost of all the terms that share it, beside that of each."""

    @abstractmethod
    def together(self, guesses: Sequence[Float[Tensor, "b _ k"]]) -> Float[Tensor, ""]:
        """The cost of the guesses of all those terms at once; it is added to each of them, so that it weighs what they
        weigh together."""


class Regulariser(nn.Module, ABC):
    """What is added to a term's loss to keep the entropy of its targets up where its likelihood does not."""

    scope: Scope

    @abstractmethod
    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]: ...


class CategoryHead(nn.Module, ABC):
    """A trained category head: how well each category explains an image."""

    names: tuple[str, ...]
    """Of the categories, in order; empty where the data named none."""
    count: int
    """How many categories there are."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Float[Tensor, "b classes"]:
        """Scores of raw tokens; their softmax is the likelihood that was trained."""


class Teacher(ABC):
    """A frozen model by reference: image tokens, and texts where it has a text tower. Never trained, never saved."""

    reference: str
    grid: Grid
    size: int
    licence: str
    scale: float
    """exp of the logit scale, for zero-shot probabilities."""
    has_text: bool
    has_joint: bool
    """Whether it has a space that images and texts share."""
    templates: tuple[str, ...]
    """Prompts that suit its texts; empty: CLIP's eighty."""
    statistics: str
    """Name of the statistics it normalises pixels by, or `own` where they have no name."""
    codes: int = 0
    """How many codes its code book has; 0 where it has none."""
    pool: Literal["cls", "mean"] = "cls"
    """What stands for an image: the pooled row, or the mean of the patch rows where nothing trained the pooled one."""
    frames: int = 1
    """Of the clips it looks at; a still picture shows the same in all of them."""
    categories: CategoryHead | None = None
    """Its own category head, where it has learned categories."""

    @abstractmethod
    def parts(self) -> tuple[nn.Module, ...]:
        """Its networks, to look at."""

    @abstractmethod
    def width(self, space: Space) -> int: ...

    @abstractmethod
    def tokens(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        """Tokens of images at any square size; its own size and normalisation are applied here. Outputs of
        blocks are given in the space too: in the joint one, as if each were the last block's."""

    @abstractmethod
    def text(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        """Embeddings in the joint space, not normalised."""


class Evaluator(ABC):
    """One protocol of evaluation."""

    @abstractmethod
    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]: ...
