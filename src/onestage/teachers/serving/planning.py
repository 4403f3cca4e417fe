"""Where the geometry of the views that teachers see comes from: drawn in each epoch, kept for some, or stored.

Parameters come from the counter-based generator, so which geometry an epoch has is a function of (seed, sample, epoch)
and of nothing else: not of what is kept, nor of how many processes train.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, final

import numpy as np

from onestage.roles import BadSample, Plan
from onestage.spec import UserError
from onestage.teachers.serving.key import Key, view_key
from onestage.teachers.serving.store import Store
from onestage.views import ViewSpec

Random = Callable[[str, int], np.random.Generator]
"""The generator of a sample for a purpose and an epoch of it."""


class Shown(NamedTuple):
    """A sample as a view is planned of it: its number in the source, the epoch it stands in, the size of its picture
    and, where answers are kept, the checksum of it."""

    number: int
    epoch: int
    size: tuple[int, int]
    picture: bytes = b""


class Marked(NamedTuple):
    """A planned view, and where its teacher's answers are kept under which key; None where they are not."""

    plan: Plan
    place: int | None = None
    key: Key = (0, 0)


class Planning(ABC):
    """Plans the views of a sample."""

    kept: frozenset[str]
    """Views whose answers are kept: their pictures need a checksum."""

    @abstractmethod
    def plan(self, name: str, view: ViewSpec, random: Random, shown: Shown) -> Marked:
        """The view of that name.

        Raises:
            UserError: when a store lacks it.
        """

    def plans(self, views: Mapping[str, ViewSpec], random: Random, shown: Shown) -> dict[str, Marked]:
        """All views of a method."""
        return {
            name: self.plan(name, view, random, shown) if name in self.kept else drawn(name, view, random, shown)
            for name, view in views.items()
        }


def drawn(name: str, view: ViewSpec, random: Random, shown: Shown) -> Marked:
    """A view of its own for each epoch."""
    return Marked(view.plan(random(name, shown.epoch), *shown.size))


@final
class Fresh(Planning):
    """Every view is drawn in each epoch."""

    kept: frozenset[str] = frozenset()

    def plan(self, name: str, view: ViewSpec, random: Random, shown: Shown) -> Marked:
        return drawn(name, view, random, shown)


@final
class Replayed(Planning):
    """Kept views are those of epoch number (epoch div epochs): the same for so many epochs.

    Args:
        salt: who answers, and in what form: `salt_of`.
    """

    def __init__(self, kept: frozenset[str], epochs: int, salt: bytes) -> None:
        self.kept, self.epochs, self.salt = kept, epochs, salt

    def plan(self, name: str, view: ViewSpec, random: Random, shown: Shown) -> Marked:
        plan = view.plan(random(name, shown.epoch // self.epochs), *shown.size)
        return Marked(plan, shown.number, view_key(self.salt, shown.picture, plan, view))


@final
class FromStore(Planning):
    """Kept views are those of a store: in each epoch, the generator chooses one of a picture's views."""

    def __init__(self, kept: frozenset[str], store: Store) -> None:
        self.kept, self.store = kept, store
        self.salt = bytes.fromhex(store.manifest.salt)

    def plan(self, name: str, view: ViewSpec, random: Random, shown: Shown) -> Marked:
        count, picture = self.store.manifest.count, self.store.find(shown.picture)
        if picture is None:
            raise UserError(
                f"{self.store.folder}: it holds no answers for sample {shown.number} of the data, which is new or has "
                f"changed (checksum {shown.picture.hex()}); make a store of these data with: onestage teach"
            )
        chosen = int(random(f"stored/{name}", shown.epoch).integers(count))
        plan = self.store.plan(picture, name, chosen)
        if plan is None:
            raise BadSample("it did not decode when the store was made")
        return Marked(plan, picture * count + chosen, view_key(self.salt, shown.picture, plan, view))
