"""Single steps of prepared runs: what they change, and how that is compared."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from onestage import pretraining
from onestage.engine.pieces import on_device
from onestage.pretraining import Prepared, loop
from onestage.storage import load
from onestage.types import Batch
from small import ROWS, TAUGHT, small


def brief_teacher(folder: Path) -> str:
    """A run that learned from captions, briefly."""
    pretraining.start(small("clip", steps=2), folder / "run", [])
    return str(folder / "run")


def brief_codes(teacher: str) -> str:
    """A run with a code book that learned from a run of `brief_teacher`, briefly, beside it."""
    folder = Path(teacher).with_name("codes")
    if not folder.exists():
        pretraining.start(small("vqkd", steps=2, teachers={"teacher": teacher}), folder, [])
    return str(folder)


def brief_categories(teacher: str) -> str:
    """A run that learned from labels, briefly, beside a run of `brief_teacher`."""
    folder = Path(teacher).with_name("categories")
    if not folder.exists():
        pretraining.start(small("supervised", steps=2), folder, [])
    return str(folder)


def taught(row: str, teacher: str) -> dict[str, str]:
    if row not in TAUGHT:
        return {}
    if ROWS[row].needs_categories:
        return {"teacher": brief_categories(teacher)}
    return {"teacher": brief_codes(teacher) if ROWS[row].needs_codes else teacher}


def batch_of(prepared: Prepared, step: int) -> Batch:
    return on_device(prepared.batches[step], prepared.device)


def poisoned(batch: Batch, value: float) -> Batch:
    """The batch with one pixel of one image changed."""
    name, view = next(iter(batch.views.items()))
    pixels = view.pixels / 255
    pixels[0, 0, 0, 0] = value
    return batch._replace(views={**batch.views, name: view._replace(pixels=pixels)})


def state(prepared: Prepared) -> dict[str, Tensor]:
    """Everything that a step may change: parameters, averages, buffers, moments."""
    weights = {f"model.{name}": tensor.clone() for name, tensor in prepared.objective.state_dict().items()}
    return weights | {f"optimiser.{name}": tensor.clone() for name, tensor in prepared.optimisers.state().items()}


def take(prepared: Prepared, step: int, batch: Batch | None = None) -> bool:
    """One step as the loop takes it; whether it was skipped."""
    torch.manual_seed(loop.step_seed(prepared.recipe.seed, step))
    prepared.optimisers.set_lr(prepared.recipe.schedule, step, prepared.total)
    given = batch_of(prepared, step) if batch is None else batch
    return prepared.step(given, step, prepared.total).skipped


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]


def tensors(run: Path, step: int) -> dict[str, Tensor]:
    found = load(run / "checkpoints" / f"step_{step:08d}").tensors
    return {f"{file}.{name}": tensor for file, named in found.items() for name, tensor in named.items()}
