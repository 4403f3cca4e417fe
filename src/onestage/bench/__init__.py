"""The measurements behind `onestage bench`: JSON lines, side by side in one interleaved run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onestage.bench.loader import measure
from onestage.spec import UserError, suggest

CASES = ("loader",)


def bench(case: str, *, data: str | None = None, images: int = 256, rounds: int = 5) -> Iterator[dict[str, Any]]:
    """The lines of one case, each as soon as it is measured.

    Args:
        data: whose pictures are used; None makes some of the built-in photographs.
        images: pictures that one measurement reads.
        rounds: measurements of everything that is compared.

    Raises:
        UserError: for an unknown case, or data without image files.
    """
    if case not in CASES:
        raise UserError(f"there is no bench '{case}'{suggest(case, list(CASES))} (known: {', '.join(CASES)})")
    if min(images, rounds) < 1:
        raise UserError(f"bench: {images} images in {rounds} rounds; both are at least 1")
    return measure(data, images, rounds)


__all__ = ["CASES", "bench"]
