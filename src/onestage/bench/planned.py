"""`onestage plan`: a recipe prepared, looked at and measured for a few steps."""

from __future__ import annotations

import dataclasses
import os

import torch
from torch.utils.flop_counter import FlopCounterMode

from onestage.bench.costs import backward, measured
from onestage.bench.plan import GPUS, Load, modelled, told
from onestage.engine.pieces import on_device, split
from onestage.objective import Ask
from onestage.pretraining import Prepared, Recipe, prepare
from onestage.pretraining.prepare import default_workers, share_cores
from onestage.spec import UserError, suggest
from onestage.teachers.serving import Serving
from onestage.teachers.serving.codec import Answered
from onestage.types import Batch, Tokens

TRAINED = 16
"""Bytes of a trained parameter: itself, its gradient and Adam's two averages, in fp32."""


def plan(recipe: Recipe, gpus: int, kind: str | None) -> str:
    """What a run will cost: on this machine, measured for a few steps; or on GPUs of a kind that is not at hand.

    Raises:
        UserError: when the recipe cannot be prepared, or the kind of GPU is not known.
    """
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: expected 1 or more")
    if kind is not None and kind.lower() not in GPUS:
        raise UserError(f"--gpu {kind}: not known{suggest(kind.lower(), list(GPUS))} (known: {', '.join(GPUS)})")
    live = dataclasses.replace(recipe, serving=dataclasses.replace(recipe.serving, mode=Serving().mode))
    workers = default_workers() if recipe.workers is None else recipe.workers
    share_cores(workers)
    prepared = prepare(live, None)
    load = load_of(prepared, workers)
    if kind is not None:
        return told(modelled(load, GPUS[kind.lower()]), load, gpus, f"{kind.lower()} (modelled, loading left out)")
    _check_memory(load, prepared.device)
    name = torch.cuda.get_device_name() if prepared.device.type == "cuda" else "this CPU"
    return told(measured(prepared), load, gpus, f"{name} (measured)")


def _check_memory(load: Load, device: torch.device) -> None:
    """What is measured has to fit this machine."""
    cuda = device.type == "cuda"
    there = torch.cuda.mem_get_info()[0] if cuda else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if load.memory > there:
        raise UserError(
            f"a step needs about {load.memory / 1e9:.3g} GB, and this machine has {there / 1e9:.3g}, so it cannot be "
            f"measured here; cut it into pieces (--accumulate {-(-int(load.memory) // there)} or more), or ask for a "
            f"GPU that is not at hand (--gpu {next(iter(GPUS))})"
        )


def load_of(prepared: Prepared, workers: int) -> Load:
    """The size of a run."""
    recipe = prepared.recipe
    batch = on_device(prepared.batches[0], prepared.device)
    few = split(batch, max(recipe.batch // (2 * batch.copies), 1))[0]
    size = few.number.shape[0]
    answers: dict[Ask, Tokens] = {}
    with FlopCounterMode(display=False) as teacher:
        answers = {ask: prepared.server(ask, few) for ask in prepared.step.asks}
    with FlopCounterMode(display=False) as student:
        held = activations(prepared, few, answers)
    prepared.optimisers.zero_grad()
    kept = [tokens for ask, tokens in answers.items() if ask.view in recipe.method.views]  # words are not
    shapes = [Answered(tokens.grid, tokens.rows.shape[-1]) for tokens in kept]
    trained = sum(one.numel() for one in prepared.objective.parameters() if one.requires_grad)
    still = sum(one.numel() * one.element_size() for one in prepared.objective.parameters() if not one.requires_grad)
    networks = [network for one in prepared.teachers.values() for network in one.parts()]
    still += sum(one.numel() * one.element_size() for network in networks for one in network.parameters())
    return Load(
        pictures=len(prepared.source),
        images=prepared.total * recipe.batch,
        workers=workers,
        answer={"int8": sum(one.size("int8") for one in shapes), "fp16": sum(one.size("fp16") for one in shapes)},
        teacher_gflop=teacher.get_total_flops() / size / 1e9,
        student_gflop=student.get_total_flops() / size / 1e9,
        memory=TRAINED * trained + still + held / size * (recipe.batch // recipe.accumulate),
        parameters=trained,
        batch=recipe.batch,
    )


def activations(prepared: Prepared, batch: Batch, answers: dict[Ask, Tokens]) -> int:
    """Bytes that a forward pass keeps for the backward pass, which is done too. Weights are not counted."""
    weights = {one.untyped_storage().data_ptr() for one in prepared.objective.parameters()}
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        backward(prepared, batch, answers)
    return sum(held.values())
