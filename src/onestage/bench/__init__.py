"""The measurements behind `onestage bench`: JSON lines, side by side in one interleaved run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onestage.bench.loader import LoaderBench
from onestage.bench.masks import MasksBench
from onestage.bench.table import TableBench
from onestage.bench.teacher import TeacherBench
from onestage.spec import UserError, fields_of, from_plain, suggest

CASES: dict[str, type[LoaderBench | MasksBench | TableBench | TeacherBench]] = {
    "loader": LoaderBench,
    "masks": MasksBench,
    "table": TableBench,
    "teacher": TeacherBench,
}
"""Every case by the name that users type; the first line of its docstring says what it measures."""


def bench(case: str, options: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """The lines of one case, each as soon as it is measured.

    Args:
        options: fields of the case's spec; texts become numbers where a number is expected.

    Raises:
        UserError: for an unknown case or option, or data that cannot be used.
    """
    if case not in CASES:
        raise UserError(f"there is no bench '{case}'{suggest(case, list(CASES))} (known: {', '.join(CASES)})")
    known = [field.name for field in fields_of(CASES[case])]
    for name in options or {}:
        if name not in known:
            raise UserError(
                f"bench {case}: there is no option --{name}{suggest(name, known)} (known: {', '.join(known)})"
            )
    plain = {key: given for key, given in (options or {}).items() if given is not None}
    return from_plain(CASES[case], plain, f"bench {case}").run()


__all__ = ["CASES", "bench"]
