"""Which key of a row, column of a table or member of a shard holds what: by its usual name unless a user says which."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from onestage.spec import UserError

FILES = ("file_name",)
PICTURES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
TEXTS = ("text", "texts", "caption", "captions")
LABELS = ("label",)
_SHOWN = 20


class Keys(NamedTuple):
    """What holds the picture, the text and the label; None for the usual names."""

    image: str | None = None
    text: str | None = None
    label: str | None = None


USUAL = Keys()


def key_among(where: str, what: str, asked: str | None, usual: Collection[str], there: Collection[str]) -> str | None:
    """The key that was asked for, else the first of the usual names that is there, else None.

    Raises:
        UserError: when the one that was asked for is not there.
    """
    if asked is None:
        return next((name for name in usual if name in there), None)
    if asked not in there:
        raise no_key(where, what, asked, there)
    return asked


def no_key(where: str, what: str, asked: str, there: Collection[str]) -> UserError:
    """The error for a key that is not there: it says which are."""
    shown = ", ".join(sorted(there)[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
    return UserError(f"{where}: nothing is called '{asked}', which was given as {what}=; there are: {shown or 'none'}")
