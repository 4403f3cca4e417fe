"""The loss of a run on its validation data while it trains (UTA, arXiv:2405.19009, A.3 and figure 4).

The same samples, views and hidden cells are looked at every time, so that two readings differ by what was learned
alone. Of several processes all take part, since a likelihood over the batch needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from onestage.data import Quarantine
from onestage.distributed import rank, world
from onestage.engine.loader import Batches
from onestage.engine.pieces import on_device
from onestage.engine.together import together
from onestage.objective import Method, Objective, hiding, unblended
from onestage.pretraining.prepare import Prepared
from onestage.roles import Source

KEY = "val/loss"
"""In the metrics; the loss of one term of several is `val/loss/TERM`."""
SEED = 0
"""Of the samples, views and hidden cells, whatever the run's own seed: seeds are judged on the same."""


def can_be_validated(method: Method, val: Source) -> str:
    """Why the loss cannot be measured on a source; empty where it can."""
    lacks = [
        what
        for what, needed, there in (
            ("texts", method.needs_texts, val.has_texts),
            ("labels", method.needs_labels, val.has_labels),
        )
        if needed and not there
    ]
    return f"{val.name} has no {' and no '.join(lacks)}" if lacks else ""


def validation_loss(prepared: Prepared) -> dict[str, float]:
    """The mean loss over as many validation samples as are watched, in batches as large as one piece of training's."""
    recipe, val = prepared.recipe, prepared.val
    assert val is not None, "there is no validation loss without validation data"
    method = recipe.method if recipe.watch.hide is None else hiding(recipe.method, recipe.watch.hide)
    method = unblended(method)
    size = recipe.batch // recipe.accumulate
    count = max(min(recipe.watch.samples, len(val)) // size, 1)
    data = Batches(
        val,
        method,
        prepared.batches.grids,
        size,
        SEED,
        prepared.batches.tokenize,
        Quarantine(None),
        None,
        count,
        rank(),
        world(),
        decoder=prepared.batches.decoder,
    )
    sums: dict[str, Tensor] = {}
    with _evaluated(prepared.objective, method):
        for step in range(count):
            batch = on_device(together(partial(data.__getitem__, step)), prepared.device)
            losses = prepared.step.measure(batch)
            terms = {f"{KEY}/{name}": loss for name, loss in losses.terms.items()} if len(losses.terms) > 1 else {}
            for name, loss in {KEY: losses.total, **terms}.items():
                sums[name] = sums.get(name, 0.0) + loss
    return {name: float(total) / count for name, total in sums.items()}


@contextmanager
def _evaluated(objective: Objective, method: Method) -> Iterator[None]:
    """The objective in evaluation mode and under another way of hiding; afterwards as it was."""
    own = objective.method
    objective.method = method
    objective.eval()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        objective.method = own
        objective.after_skip()
        objective.training_mode()


__all__ = ["KEY", "can_be_validated", "validation_loss"]
