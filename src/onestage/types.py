"""Tensor bundles that cross rooms, and the axis letters of the whole package.

Letters in shapes: `b` batch, `n` rows kept by an encoder, `g` grid cells (row-major), `m` target rows, `d` width,
`k` target width, `t` words, `c h w` channels and pixels. Named tuples only: a bundle holds tensors and no behaviour.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

POOLED = -1
"""The cell number of the pooled row: the class token where the encoder pools by it, else its mean or map-pooled row."""

HideMode = Literal["full", "drop", "replace"]
Scope = Literal["sample", "batch"]
Grid = tuple[int, int]


class Geometry(NamedTuple):
    """Where a view lies in its source image: `box` is (top, left, height, width) in pixels of the unflipped source."""

    box: Float[Tensor, "b 4"]
    flip: Bool[Tensor, " b"]


Images = UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]
"""Pictures, red, green and blue: uint8, as they are decoded, or floats in [0, 1]. A clip is one picture too: its
frames, squares that are cut alike, one below another."""


class View(NamedTuple):
    """One view of every sample of a batch, and its geometry."""

    pixels: Images
    geometry: Geometry


class Words(NamedTuple):
    """One text per sample. Samples whose `text_id` are equal carry the same text. `given` is False where there is
    none, and the words are empty; None: all are given."""

    ids: Int[Tensor, "b t"]
    text_id: Int[Tensor, " b"]
    given: Bool[Tensor, " b"] | None = None


class Piece(NamedTuple):
    """One part of an input as an encoder receives it: a view or words, and the cells it may not see. `hides` is how
    many cells are hidden in every sample: a Python number, so that shapes are known without asking the device."""

    view: View | None
    words: Words | None = None
    hidden: Bool[Tensor, "b g"] | None = None
    hides: int = 0
    mode: HideMode = "full"
    layers: int = 0
    """Of how many of the last blocks the outputs are wanted too."""
    attention: bool = False
    """Whether the class token's attention is wanted too."""
    owner: Bool[Tensor, "b g"] | None = None
    """Where two images are mixed and kept apart: cells attend only to cells that are equal here."""


class Place(NamedTuple):
    """Where each row of an encoder's output belongs: its grid cell (`POOLED` for the class token), frame or
    tubelet, owner (which image of a mix) and modality (0 image, 1 text). Each is one number a row."""

    cell: Int[Tensor, "b n"]
    frame: Int[Tensor, "b n"]
    owner: Int[Tensor, "b n"]
    modality: Int[Tensor, "b n"]


class Layer(NamedTuple):
    """What one block of an encoder put out, before any norm: rows and pooled row, in the places of the tokens."""

    rows: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b d"]


class Tokens(NamedTuple):
    """z_x or z_y: an encoder's rows, its pooled row, where each row belongs, and the geometry of the view encoded."""

    rows: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b d"]
    place: Place
    grid: Grid
    geometry: Geometry | None
    layers: tuple[Layer, ...] = ()
    """Outputs of the last blocks, the deepest last, where they were asked for."""
    normed: tuple[Layer, ...] = ()
    """The same after the encoder's final norm."""
    attention: Float[Tensor, "b g"] | None = None
    """How much the class token looks at each cell in the last block, where it was asked for: a softmax over all keys,
    averaged over heads."""
    bias: Float[Tensor, "b h m m"] | None = None
    """What the encoder adds to the logits of its attention, of the class token and the rows, where it gives outputs of
    blocks: for blocks that go on from there."""
    second: Float[Tensor, "b d"] | None = None
    """The second class token, where the encoder has two."""


class Also(NamedTuple):
    """What is wanted of a frozen model beside its rows: outputs of so many last blocks, and its attention."""

    layers: int = 0
    attention: bool = False


class Wanted(NamedTuple):
    """The target rows a predictor has to guess: their cells, and the geometry of the target's view."""

    cell: Int[Tensor, "b m"]
    grid: Grid
    geometry: Geometry | None


class Blended(NamedTuple):
    """What a view of each sample was blended with: the share of the sample itself, and the partner's label."""

    share: Float[Tensor, " b"]
    label: Int[Tensor, " b"]


class Target(NamedTuple):
    """z_y: the rows to be explained. `identity` numbers equal targets alike (texts, classes); `weight` counts a row
    in the loss (0 leaves it out); a table's target has `rows` of shape (classes, k) shared by the batch. `whole` is
    one row a sample for what is remembered of it, without gradient: the pooled row beside rows of cells."""

    rows: Float[Tensor, "b m k"] | Float[Tensor, "classes k"]
    identity: Int[Tensor, " b"] | None
    weight: Float[Tensor, "b m"] | None
    whole: Float[Tensor, "b k"] | None = None
    blend: Blended | None = None
    """Of a table: the other class that a blended view shows."""


class Mark(NamedTuple):
    """Where the teacher's answers for the views of a batch are kept, and under which keys."""

    place: Int[Tensor, " b"]
    key: Int[Tensor, "b 2"]


class Batch(NamedTuple):
    """What the loader yields. `hidden` is keyed by input/part name, and so is `noise`, in [0, 1), by which hiding that
    waits for a teacher's answer draws; `number` is the sample's number in the stream;
    `labelled` is False where there is no label, and the label is -1; None: all have one. `marks` are those of the
    views whose teachers' answers are kept; None: none are."""

    number: Int[Tensor, " b"]
    views: dict[str, View]
    hidden: dict[str, Bool[Tensor, "b g"]]
    words: Words | None
    label: Int[Tensor, " b"] | None
    labelled: Bool[Tensor, " b"] | None = None
    marks: dict[str, Mark] | None = None
    copies: int = 1
    """How many samples after one another are one view, each with cells of its own hidden."""
    noise: dict[str, Float[Tensor, "b g"]] = {}  # noqa: RUF012 - never changed
    blends: dict[str, Blended] = {}  # noqa: RUF012 - never changed
    """For views that show two samples, where labels are read."""


class Represented(NamedTuple):
    """What `Objective.represent` hands to `Objective.score`: a guess and a target for each term, and the costs of
    predictors that have some."""

    guesses: dict[str, Float[Tensor, "b m k"]]
    targets: dict[str, Target]
    costs: dict[str, Float[Tensor, "b g"]] = {}  # noqa: RUF012 - never changed


class Losses(NamedTuple):
    """Total loss in fp32, each term's own (before its weight), and what is watched of them without gradient."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    watched: dict[str, Float[Tensor, ""]]
