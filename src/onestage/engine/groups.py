"""Groups of an optimiser: which parameters learn how fast, decay and are clipped.

A parameter belongs to the first group one of whose patterns matches its name. Learning rates are stored
with the batch they were found at and rescaled to the batch in use: linearly (Goyal et al.,
arXiv:1706.02677) or by the square root (Krizhevsky, arXiv:1404.5997). Layer-wise decay is BEiT's
(arXiv:2106.08254): with L blocks, the stem is layer 0, block i is layer i + 1, everything else is layer
L + 1, and layer l learns at `lr * layer_decay ** (L + 1 - l)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from onestage.engine.adapted import Trust
from onestage.spec import UserError, spec, suggest

_BLOCK = re.compile(r"^(?:(.*)\.)?(?:res)?blocks\.(\d+)\.")
_STEM = re.compile(
    r"(?:^|\.)(?:patch_embed|cls_token|reg_token|mask_token|pos_embed|rel_pos|norm_pre"
    r"|conv1|class_embedding|token_embedding|positional_embedding|ln_pre)"
)
"""Names of timm, and of CLIP's towers."""


@spec
class Group:
    """Parameters that are optimised alike."""

    lr: Annotated[float, Field(ge=0)]
    """Peak learning rate at the reference batch."""
    match: tuple[str, ...] = ("*",)
    """Patterns of parameter names (`*`, `?`, `[...]`)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    last_weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Where the weight decay ends, along a cosine over the run (DINO); None leaves it constant."""
    no_decay: tuple[str, ...] = ()
    """Patterns of names that do not decay, beside what `decay_vectors` exempts."""
    decay: tuple[str, ...] = ()
    """Patterns of names that decay though they are vectors: of mask tokens, say, which BEiT's code lets decay."""
    decay_vectors: Literal["never", "always"] = "never"
    """`never`: biases and whatever has at most one axis do not decay; `always`: they do (MoCo v3)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; None leaves it as it is."""
    clip_by: Literal["group", "tensor"] = "group"
    """What `clip` bounds: the norm over the whole group, or that of each tensor (DINO, iBOT)."""
    freeze_until: Annotated[int, Field(ge=0)] = 0
    """The group stays as it is before this step (DINO's last layer)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of a block relative to the next one; needs one tower with names `blocks.N.` or `resblocks.N.`."""
    kind: Literal["adamw", "lamb", "lars"] = "adamw"
    """`lamb` (arXiv:1904.00962) rescales each tensor's step by its trust ratio, and is for very large batches; `lars`
    (arXiv:1708.03888) does so with the step of plain momentum, the first of `betas`."""
    trust: Trust | None = None
    """Bounds of LAMB's trust ratio; None leaves it as it is."""
    eta: Annotated[float, Field(gt=0)] = 1e-3
    """What the trust ratio of LARS is multiplied by."""


@spec
class Optimiser:
    """All groups, tried in their order, and how their learning rates follow the batch."""

    groups: dict[str, Group]
    reference_batch: Annotated[int, Field(gt=0)]
    """The total batch that the learning rates were found at."""
    rule: Literal["linear", "sqrt", "none"] = "linear"

    def scale(self, batch: int) -> float:
        """By what learning rates are multiplied at this total batch."""
        ratio = batch / self.reference_batch
        return {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[self.rule]

    def rescaled(self, lr: float, batch: int) -> float:
        """A learning rate of the reference batch, at this total batch."""
        return lr * self.scale(batch)


def scale_note(optimiser: Optimiser, batch: int) -> str:
    """What rescaling did, in a sentence for people, e.g.
    `learning rate 1.5e-3 at batch 4096 -> 9.4e-5 at batch 256 (linear rule)`. One line a group."""

    def note(lr: float) -> str:
        if batch == optimiser.reference_batch:
            return f"learning rate {_short(lr, 4)} at batch {batch}, its reference batch"
        head = f"learning rate {_short(lr, 4)} at batch {optimiser.reference_batch}"
        return f"{head} -> {_short(optimiser.rescaled(lr, batch), 2)} at batch {batch} ({rule})"

    rule = "not rescaled" if optimiser.rule == "none" else f"{optimiser.rule} rule"
    if len(optimiser.groups) == 1:
        return note(next(iter(optimiser.groups.values())).lr)
    return "\n".join(f"{name}: {note(group.lr)}" for name, group in optimiser.groups.items())


def assign(parameters: list[str], groups: Mapping[str, Group]) -> dict[str, list[str]]:
    """Names of the parameters of each group, the first match winning."""
    names: dict[str, list[str]] = {group: [] for group in groups}
    for parameter in parameters:
        found = next((name for name, group in groups.items() if _matches(parameter, group.match)), None)
        if found is None:
            tried = ", ".join(pattern for group in groups.values() for pattern in group.match)
            raise UserError(
                f"no optimiser group matches parameter '{parameter}' (patterns: {tried or 'none'}). "
                'Add a last group with match ["*"], or freeze the parameter.'
            )
        names[found].append(parameter)
    for name, members in names.items():
        # A catch-all may find nothing left; any other unused group is a mistake a catch-all would hide.
        if not members and "*" not in groups[name].match:
            pattern = groups[name].match[0] if groups[name].match else ""
            raise UserError(
                f"optimiser group '{name}' (match {list(groups[name].match)}) has no parameter: nothing "
                f"matches, or earlier groups took it{suggest(pattern, parameters)}. Mend or remove the group."
            )
    return names


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def decay_of(name: str, parameter: Tensor, group: Group) -> float:
    """How strongly a parameter decays."""
    is_vector = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
    spared = is_vector and group.decay_vectors == "never" and not _matches(name, group.decay)
    exempt = spared or _matches(name, group.no_decay)
    return 0.0 if exempt else group.weight_decay


def layer_scales(group: str, names: list[str], layer_decay: float | None) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by."""
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    matched = {name: found for name in names if (found := _BLOCK.match(name))}
    # A convolutional stem may name its layers `blocks` too.
    blocks = {name: found for name, found in matched.items() if not _STEM.search(found[1] or "")}
    towers = {found[1] for found in blocks.values()}
    if len(towers) != 1:
        raise UserError(
            f"optimiser group '{group}': layer_decay needs the parameters 'blocks.N.' of exactly one tower, "
            f"found {len(towers)}. Give each tower a group of its own, or leave layer_decay out."
        )
    top = max(int(found[2]) for found in blocks.values()) + 2

    def layer(name: str) -> int:
        if name in blocks:
            return int(blocks[name][2]) + 1
        return 0 if _STEM.search(name) else top

    return {name: layer_decay ** (top - layer(name)) for name in names}


def _short(value: float, digits: int) -> str:
    """`1.5e-3` rather than `0.0015` or `1.5e-03`."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
