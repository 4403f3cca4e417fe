"""onestage: multimodal visual pre-training in one stage, every method a row of one table.

The verbs of the command line are functions here under the same names: `onestage.pretrain(...)`, and so on.
They are loaded on first use (PEP 562), so that importing the package, or one room of it, stays light.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onestage.api import (
        average,
        check,
        cp,
        data_check,
        data_cut,
        data_index,
        data_pack,
        data_show,
        evaluate,
        ls,
        plan,
        pretrain,
        report,
        resume,
        show,
        teach,
    )

__all__ = [
    "__version__",
    "average",
    "check",
    "cp",
    "data_check",
    "data_cut",
    "data_index",
    "data_pack",
    "data_show",
    "evaluate",
    "ls",
    "plan",
    "pretrain",
    "report",
    "resume",
    "show",
    "teach",
]

try:
    __version__ = version("onestage")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'onestage' has no attribute '{name}'")
    # `report` is a verb and a room. Python binds a room here when it is first imported, so import it before
    # the verb takes the name; `from onestage.report import ...` finds the room whatever stands here.
    import onestage.report  # noqa: F401
    from onestage import api

    globals().update({verb: getattr(api, verb) for verb in __all__ if verb != "__version__"})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
