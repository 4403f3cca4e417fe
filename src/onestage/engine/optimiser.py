"""Optimiser groups: which parameters learn how fast, decay and are clipped, as one object to be checkpointed.

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
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from onestage.engine.lamb import Lamb, Trust
from onestage.engine.schedule import Rates
from onestage.spec import UserError, spec, suggest

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_BLOCK = re.compile(r"^(?:(.*)\.)?blocks\.(\d+)\.")
_STEM = re.compile(r"(?:^|\.)(?:patch_embed|cls_token|reg_token|mask_token|pos_embed|rel_pos|norm_pre)")


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
    no_decay: tuple[str, ...] = ()
    """Patterns of names that do not decay, beside what `decay_vectors` exempts."""
    decay: tuple[str, ...] = ()
    """Patterns of names that decay though they are vectors: of mask tokens, say, which BEiT's code lets decay."""
    decay_vectors: Literal["never", "always"] = "never"
    """`never`: biases and whatever has at most one axis do not decay; `always`: they do (MoCo v3)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient over the whole group; None leaves it as it is."""
    freeze_until: Annotated[int, Field(ge=0)] = 0
    """The group stays as it is before this step (DINO's last layer)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of a block relative to the next one; needs one tower with names `blocks.N.`."""
    kind: Literal["adamw", "lamb"] = "adamw"
    """`lamb` (arXiv:1904.00962) rescales each tensor's step by its trust ratio, and is for very large batches."""
    trust: Trust | None = None
    """Bounds of LAMB's trust ratio; None leaves it as it is."""


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


@final
class Optimisers:
    """AdamW (arXiv:1711.05101) or LAMB over groups of named parameters.

    Each step: `set_lr(...)`, backward, `clip()`, `step()`, `zero_grad()`. Nothing here waits for the device.

    Args:
        parameters: names and parameters, as `named_parameters()` gives them; frozen ones are left out.
        optimiser: the groups.
        batch: total batch of one step, over all devices and accumulated parts.

    Raises:
        UserError: when a trainable parameter has no group, a group no parameter, or `layer_decay` no blocks.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], optimiser: Optimiser, batch: int) -> None:
        self._parameters = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self._spec = optimiser
        self._scale = optimiser.scale(batch)
        self._names = _assign(list(self._parameters), optimiser.groups)
        self._device = next((parameter.device for parameter in self._parameters.values()), torch.device("cpu"))
        self._frozen: frozenset[str] = frozenset()
        self.norms: dict[str, Tensor] = {}
        """Gradient norm of each group before its last clipping."""
        adamw, lamb = self._param_groups("adamw"), self._param_groups("lamb")
        self._optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, fused=True)] if adamw else []
        self._optimisers += [Lamb(lamb)] if lamb else []
        self._moments = self._start_moments()

    def peaks(self) -> dict[str, float]:
        """The highest learning rate of each group at the batch in use."""
        return {name: group.lr * self._scale for name, group in self._spec.groups.items()}

    def set_lr(self, schedule: Rates, step: int, total: int) -> dict[str, float]:
        """Set what step number `step` (from 0) of `total` needs: learning rates, and which groups are frozen.

        Returns:
            The learning rate of each group at its top layer (0 while frozen), for the log.
        """
        schedule = schedule.scaled(self._scale)
        self._frozen = frozenset(name for name, group in self._spec.groups.items() if step < group.freeze_until)
        rates = {name: schedule.at(step, total, peak) for name, peak in self.peaks().items()}
        for group in (group for optimiser in self._optimisers for group in optimiser.param_groups):
            group["lr"] = rates[group["name"]] * group["layer_scale"]
        return {name: 0.0 if name in self._frozen else rate for name, rate in rates.items()}

    def clip(self) -> Float[Tensor, ""]:
        """Scale the gradients of each group that has a `clip` down to it.

        Returns:
            The norm of all gradients before clipping, not finite when one of them is not. `norms` has each
            group's.
        """
        self.norms = {group: self._clip(group) for group in self._names}
        return torch.stack(list(self.norms.values())).square().sum().sqrt()

    def step(self) -> None:
        """Update every parameter that has a gradient and is not in a frozen group."""
        for name in self._frozen:
            for parameter in self._names[name]:
                self._parameters[parameter].grad = None  # which neither updates, decays nor counts it
        for optimiser in self._optimisers:
            optimiser.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimiser in self._optimisers:
            optimiser.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The moments and step counts (not copies), keyed `<parameter>.exp_avg`, `.exp_avg_sq`, `.step`."""
        return {
            f"{name}.{moment}": self._moments[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in _MOMENTS
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state` gave. Further steps are bit-equal to those of the optimiser that was saved.

        Raises:
            UserError: when names or shapes differ; nothing is changed then.
        """
        mine = self.state()
        problems = [f"{key} is missing" for key in mine.keys() - state.keys()]
        problems += [f"{key} has no parameter here" for key in state.keys() - mine.keys()]
        problems += [
            f"{key} has shape {tuple(state[key].shape)}, expected {tuple(mine[key].shape)}"
            for key in mine.keys() & state.keys()
            if state[key].shape != mine[key].shape
        ]
        if problems:
            shown = "; ".join(sorted(problems)[:3])
            raise UserError(
                f"the saved optimiser does not fit this model ({len(problems)} differences: {shown}). "
                "Resume with the recipe that the run was started with."
            )
        for key, tensor in mine.items():
            tensor.copy_(state[key])  # in place: the fused kernel needs the strides of the parameter

    def _clip(self, group: str) -> Float[Tensor, ""]:
        parameters = [self._parameters[name] for name in self._names[group]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return torch.zeros((), device=self._device)
        norm = nn.utils.get_total_norm(gradients).float()
        limit = self._spec.groups[group].clip
        if limit is not None:
            nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _param_groups(self, kind: str) -> list[dict[str, object]]:
        """One torch group for each group of a kind, decay and layer scale, since torch keeps these per group."""
        split: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for group, names in self._names.items():
            scales = _layer_scales(group, names, self._spec.groups[group].layer_decay)
            for name in names if self._spec.groups[group].kind == kind else ():
                decay = _decay(name, self._parameters[name], self._spec.groups[group])
                split.setdefault((group, decay, scales[name]), []).append(self._parameters[name])
        return [
            {
                "params": members,
                "name": group,
                "layer_scale": scale,
                "lr": self._spec.groups[group].lr * self._scale * scale,
                "betas": self._spec.groups[group].betas,
                "eps": self._spec.groups[group].eps,
                "weight_decay": decay,
                "trust": self._spec.groups[group].trust,
            }
            for (group, decay, scale), members in split.items()
        ]

    def _start_moments(self) -> dict[Tensor, dict[str, Tensor]]:
        """Give every parameter its moments now, as AdamW would on its first step, so that the state always
        has the same keys and a checkpoint that lacks one is noticed."""
        members = ((o, p) for o in self._optimisers for group in o.param_groups for p in group["params"])
        for optimiser, parameter in members:
            optimiser.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False),
            }
        return {parameter: state for o in self._optimisers for parameter, state in o.state.items()}


def _assign(parameters: list[str], groups: Mapping[str, Group]) -> dict[str, list[str]]:
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


def _decay(name: str, parameter: Tensor, group: Group) -> float:
    is_vector = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
    spared = is_vector and group.decay_vectors == "never" and not _matches(name, group.decay)
    exempt = spared or _matches(name, group.no_decay)
    return 0.0 if exempt else group.weight_decay


def _layer_scales(group: str, names: list[str], layer_decay: float | None) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by."""
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    blocks = {name: found for name in names if (found := _BLOCK.match(name))}
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
