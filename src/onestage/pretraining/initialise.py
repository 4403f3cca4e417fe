"""`--init REF`, or `--init image=REF,text=REF`: where the weights of a run begin.

The student starts from the model's image encoder, a text encoder from its text tower (trained with it, or copied from
its teacher), the head of the joint space from its head, other encoders from those of the same name, and averages from
what they average. So a student of a teacher goes on to contrastive fine-tuning (UTA, arXiv:2405.19009, A.1), and the
vision experts of a multiway encoder start from a ViT. A model of another library is named as a teacher is.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from onestage.encoders import ClipText, Multiway
from onestage.encoders.experts import as_experts
from onestage.encoders.resample import resample
from onestage.objective import Ema, Objective, Trained
from onestage.pretraining.spec import Recipe
from onestage.spec import UserError
from onestage.teachers import Stored, image_weights, read_stored, text_weights, under
from onestage.types import Grid

MASK = "mask.token"
SHOWN = 12
"""Names that an error lists."""


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


def starts_of(reference: str) -> dict[str, str]:
    """The reference that images start from and that of texts: one for both, or `image=REF,text=REF`, or one of these.

    Raises:
        UserError: when it is none of these forms.
    """
    before, *named = re.split(r"(?:^|,)(image|text)=", reference)
    if not named:
        return {"image": reference, "text": reference}
    found = dict(zip(named[::2], named[1::2], strict=True))
    if before or not all(found.values()) or 2 * len(found) < len(named):
        raise UserError(f"--init {reference}: expected REF, or image=REF,text=REF, or one of the two")
    return found


@torch.no_grad()
def initialise_from(objective: Objective, recipe: Recipe, reference: str) -> Matched:
    """Start the encoders, and the head of the joint space, from a model's weights.

    Raises:
        UserError: when nothing fits, an encoder is found in part, or the architecture is another one.
    """
    starts, said = starts_of(reference), f"--init {reference}"
    stored = {one: read_stored(one) for one in dict.fromkeys(starts.values())}
    matched, loaded = Matched(), dict[str, bool]()
    for name in recipe.method.named(Trained):
        part = "text" if isinstance(recipe.models[name], ClipText) else "image"
        given = _given(*stored[starts[part]], recipe, name) if part in starts else {}
        encoder = objective.encoder(name)
        fixed = {key for key, own in encoder.named_parameters() if not own.requires_grad}  # sines of its own grid
        own = {key: value for key, value in encoder.state_dict().items() if key not in fixed}
        own = {key: value for key, value in own.items() if not _anew(recipe, f"encoders.{name}.{key}")}
        found = _fill(name, own, given, encoder.grid)
        _refuse_part(said, found, isinstance(recipe.models[name], Multiway))
        matched, loaded[part] = _joined(matched, found), loaded.get(part, False) or bool(found.loaded)
    for part, one in starts.items():
        if one != reference and not loaded.get(part):
            why = f"{one} holds no {part} encoder" if part in loaded else f"{recipe.name} trains no {part} encoder"
            raise UserError(f"{said}: {why}")
    if not matched.loaded:
        raise _misfit(said, matched)
    for name, role in recipe.method.encoders.items():
        if isinstance(role, Ema):
            objective.encoders[name].load_state_dict(objective.encoders[role.of].state_dict())
    return _joined(matched, _head(objective, recipe, stored[starts["image"]][0])) if "image" in starts else matched


def _anew(recipe: Recipe, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in recipe.anew)


def _refuse_part(said: str, found: Matched, grown: bool) -> None:
    """An encoder starts whole or not at all: half of one is a mistake that training hides. Mask tokens are learned
    anew, and so are the parts of a multiway encoder that a ViT has none of."""
    lacking = [name for name in found.missing if not name.endswith(MASK)]
    if found.differing or (found.loaded and lacking and not grown):
        raise _misfit(said, found._replace(missing=tuple(lacking)))


def _misfit(said: str, found: Matched) -> UserError:
    names = [*found.differing, *found.missing]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return UserError(
        f"{said}: {len(found.loaded)} tensors fit, {len(found.differing)} have another shape and {len(found.missing)} "
        f"are not in it ({', '.join(names[:SHOWN])}{more}). The encoder must have the same architecture, width, depth, "
        "patch and size (another patch or size is resampled for learned positions); what is to start as it is drawn is "
        'named by patterns, such as anew: ["encoders.student.*.attn.norm.*"].'
    )


def _given(stored: Stored, which: str, recipe: Recipe, name: str) -> dict[str, Tensor]:
    """The weights that one encoder of a recipe starts from."""
    model = recipe.models[name]
    if isinstance(model, ClipText):
        return text_weights(stored) or under(stored.weights, f"encoders.{name}.")
    if name == recipe.student:
        weights = image_weights(stored, which)
        grown = isinstance(model, Multiway) and any(key.startswith("backbone.") for key in weights)
        return as_experts(weights) if grown else weights
    return under(stored.weights, f"encoders.{name}.")


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
