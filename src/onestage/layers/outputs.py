"""What single blocks of a network put out, beside what the network gives."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def outputs_of(blocks: Iterable[nn.Module], count: int) -> Generator[list[Tensor], None, None]:
    """The outputs of the last `count` blocks (or of all, where there are fewer), in their order, once they have run."""
    found: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> None:
        found.append(output)

    last = list(blocks)[-count:] if count else []
    hooks = [block.register_forward_hook(keep) for block in last]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
