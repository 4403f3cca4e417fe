"""How a recipe has its frozen teachers answer: live, replayed for some epochs, or from a store."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import Field

from onestage.spec import spec
from onestage.teachers.serving.codec import Codec

Positive = Annotated[int, Field(ge=1)]


@final
@spec
class Live:
    """Teachers see every view."""

    kind: Literal["live"] = "live"


@final
@spec
class Replay:
    """The crop that a teacher sees of a sample is kept for some epochs while masks are drawn afresh, and its answer
    is kept with it."""

    epochs: Positive = 4
    """Passes over the data that a crop stays the same."""
    gigabytes: Annotated[float, Field(gt=0)] = 10.0
    """Room on the disk, in 10^9 bytes, on each machine; answers that do not fit are asked for each time."""
    codec: Codec = "int8"
    """int8: one byte a value; fp16: two."""
    folder: str | None = None
    """On a local disk; empty: in the run's directory. Answers are removed when the run has ended, and may be before."""
    kind: Literal["replay"] = "replay"


@final
@spec
class Stored:
    """Views and answers come from a store that `onestage teach` has made; no teacher is asked."""

    folder: str
    kind: Literal["store"] = "store"


Mode = Annotated[Live | Replay | Stored, Field(discriminator="kind")]


@final
@spec
class Serving:
    """How frozen teachers answer."""

    mode: Mode = Live()
    """{kind: live}, {kind: replay, epochs: 4, gigabytes: 10} or {kind: store, folder: DIR}."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of teachers; empty: the run's."""
    micro_batch: Positive | None = None
    """Views that a teacher sees at once; empty: all of a step's."""
    compile: Literal["auto", "never"] = "auto"
    """auto: teachers are compiled on a GPU."""
    masks: Positive = 1
    """Masks for each view: so many samples of a batch are one view with other hidden cells, for which teachers are
    asked once."""
