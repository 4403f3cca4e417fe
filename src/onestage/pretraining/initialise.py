"""`--init REF`: where the weights of a run begin.

The student starts from the model's image encoder, a text encoder from its text tower (trained with it, or copied from
its teacher), the head of the joint space from its head, other encoders from those of the same name, and averages from
what they average. So a student of a teacher goes on to contrastive fine-tuning (UTA, arXiv:2405.19009, A.1), and the
vision experts of a multiway encoder start from a ViT.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onestage.encoders import ClipText, Multiway, Vit
from onestage.encoders.experts import as_experts
from onestage.encoders.resample import resample
from onestage.objective import Ema, Objective, Trained
from onestage.pretraining.spec import Recipe
from onestage.spec import UserError
from onestage.teachers import Stored, image_weights, read_stored, text_weights, under
from onestage.types import Grid


class Matched(NamedTuple):
    """What `--init` found: names loaded, names of this model that it lacks, names whose shapes differ, and of those
    loaded the ones that were resampled for another patch or size."""

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = f"{len(self.loaded)} tensors loaded, {len(self.missing)} left as they were"
        return said + (f"; resampled for another patch or size: {', '.join(self.resampled)}" if self.resampled else "")


@torch.no_grad()
def initialise_from(objective: Objective, recipe: Recipe, reference: str) -> Matched:
    """Start the encoders, and the head of the joint space, from a model's weights.

    Raises:
        UserError: when nothing fits, or the architecture is another one.
    """
    stored, which = read_stored(reference)
    matched = Matched()
    for name in recipe.method.named(Trained):
        encoder = objective.encoder(name)
        given = _given(stored, which, recipe, name)
        fixed = {key for key, own in encoder.named_parameters() if not own.requires_grad}  # sines of its own grid
        own = {key: value for key, value in encoder.state_dict().items() if key not in fixed}
        matched = _joined(matched, _fill(name, own, given, encoder.grid))
    if not matched.loaded or matched.differing:
        shown = ", ".join((matched.differing or matched.missing)[:3])
        raise UserError(
            f"--init {reference}: {len(matched.loaded)} tensors fit, {len(matched.differing)} have another shape and "
            f"{len(matched.missing)} are not in it ({shown}...). The encoder must have the same architecture, width, "
            "depth, patch and size (another patch or size is resampled for learned positions)."
        )
    for name, role in recipe.method.encoders.items():
        if isinstance(role, Ema):
            objective.encoders[name].load_state_dict(objective.encoders[role.of].state_dict())
    return _joined(matched, _head(objective, recipe, stored))


def _given(stored: Stored, which: str, recipe: Recipe, name: str) -> dict[str, Tensor]:
    """The weights that one encoder of a recipe starts from."""
    if name == recipe.student:
        weights, model = image_weights(stored, which), recipe.models[name]
        grown = isinstance(model, Multiway) and isinstance(stored.bundle.encoder, Vit)
        return as_experts(weights) if grown else weights
    texts = text_weights(stored) if isinstance(recipe.models[name], ClipText) else {}
    return texts or under(stored.weights, f"encoders.{name}.")


def _fill(name: str, own: dict[str, Tensor], given: dict[str, Tensor], grid: Grid) -> Matched:
    """Copy what fits into a module's own tensors."""
    loaded, missing, differing, resampled = [], [], [], []
    for key, tensor in own.items():
        value = given.get(key)
        if value is None:
            missing.append(f"{name}.{key}")
            continue
        if value.shape != tensor.shape:
            value = resample(key, value, tensor.shape, grid)
            if value is None:
                differing.append(f"{name}.{key}")
                continue
            resampled.append(f"{name}.{key}")
        tensor.copy_(value)
        loaded.append(f"{name}.{key}")
    return Matched(tuple(loaded), tuple(missing), tuple(differing), tuple(resampled))


def _head(objective: Objective, recipe: Recipe, stored: Stored) -> Matched:
    """The head of the joint space, where both have the same one; else it begins as it was drawn."""
    term, bundle = recipe.method.joint, stored.bundle
    if term is None or bundle.head_of is None or recipe.method.terms[term].predictor != bundle.head:
        return Matched()
    own = objective.predictor(term).state_dict()
    given = under(stored.weights, f"predictors.{bundle.head_of}.")
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in given.items()}:
        return Matched()
    return _fill(f"predictors.{term}", own, given, (1, 1))


def _joined(first: Matched, second: Matched) -> Matched:
    return Matched(*(tuple(a) + tuple(b) for a, b in zip(first, second, strict=True)))
