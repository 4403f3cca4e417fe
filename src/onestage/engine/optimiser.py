"""The optimiser of a run: AdamW, LAMB or LARS over groups of named parameters, as one object to be checkpointed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.engine.groups import Optimiser, assign, decay_of, layer_scales
from onestage.engine.lamb import Lamb
from onestage.engine.lars import Lars
from onestage.engine.schedule import Rates, half_cosine
from onestage.spec import UserError

_MOMENTS: dict[str, tuple[str, ...]] = {
    "adamw": ("exp_avg", "exp_avg_sq", "step"),
    "lamb": ("exp_avg", "exp_avg_sq", "step"),
    "lars": ("exp_avg",),
}
"""What each kind remembers of a parameter."""


@final
class Optimisers:
    """AdamW (arXiv:1711.05101), LAMB or LARS over groups of named parameters.

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
        self._names = assign(list(self._parameters), optimiser.groups)
        self._device = next((parameter.device for parameter in self._parameters.values()), torch.device("cpu"))
        self._frozen: frozenset[str] = frozenset()
        self.norms: dict[str, Tensor] = {}
        """Gradient norm of each group before its last clipping."""
        adamw, lamb, lars = (self._param_groups(kind) for kind in ("adamw", "lamb", "lars"))
        self._optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, fused=True)] if adamw else []
        self._optimisers += [Lamb(lamb)] if lamb else []
        self._optimisers += [Lars(lars)] if lars else []
        self._moments = self._start_moments()

    def peaks(self) -> dict[str, float]:
        """The highest learning rate of each group at the batch in use."""
        return {name: group.lr * self._scale for name, group in self._spec.groups.items()}

    def set_lr(self, schedule: Rates, step: int, total: int) -> dict[str, float]:
        """Set what step number `step` (from 0) of `total` needs: learning rates, decays, and which groups are frozen.

        Returns:
            The learning rate of each group at its top layer (0 while frozen), for the log.
        """
        schedule = schedule.scaled(self._scale)
        self._frozen = frozenset(name for name, group in self._spec.groups.items() if step < group.freeze_until)
        rates = {name: schedule.at(step, total, peak) for name, peak in self.peaks().items()}
        for group in (group for optimiser in self._optimisers for group in optimiser.param_groups):
            group["lr"] = rates[group["name"]] * group["layer_scale"]
            end = self._spec.groups[group["name"]].last_weight_decay
            if end is not None and group["decay"]:
                group["weight_decay"] = half_cosine(step, schedule.length(total), group["decay"], end)
        return {name: 0.0 if name in self._frozen else rate for name, rate in rates.items()}

    def clip(self) -> Float[Tensor, ""]:
        """Scale the gradients of each group that has a `clip` down to it, or those of each of its tensors.

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
        """The moments and step counts (not copies), keyed `<parameter>.exp_avg`, `.exp_avg_sq`, `.step`; of LARS the
        first alone."""
        return {
            f"{name}.{moment}": value
            for name, parameter in self._parameters.items()
            for moment, value in self._moments[parameter].items()
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
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        if not parameters:
            return torch.zeros((), device=self._device)
        norm = _norm(parameters)
        wanted = self._spec.groups[group]
        for part in [parameters] if wanted.clip_by == "group" else [[one] for one in parameters]:
            if wanted.clip is not None:
                nn.utils.clip_grads_with_norm_(part, wanted.clip, norm if wanted.clip_by == "group" else _norm(part))
        return norm

    def _param_groups(self, kind: str) -> list[dict[str, object]]:
        """One torch group for each group of a kind, decay and layer scale, since torch keeps these per group."""
        split: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for group, names in self._names.items():
            scales = layer_scales(group, names, self._spec.groups[group].layer_decay)
            for name in names if self._spec.groups[group].kind == kind else ():
                decay = decay_of(name, self._parameters[name], self._spec.groups[group])
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
                "decay": decay,
                "trust": self._spec.groups[group].trust,
                "eta": self._spec.groups[group].eta,
            }
            for (group, decay, scale), members in split.items()
        ]

    def _start_moments(self) -> dict[Tensor, dict[str, Tensor]]:
        """Give every parameter its moments now, as AdamW would on its first step, so that the state always
        has the same keys and a checkpoint that lacks one is noticed."""
        members = ((o, g["name"], p) for o in self._optimisers for g in o.param_groups for p in g["params"])
        for optimiser, group, parameter in members:
            moments = _MOMENTS[self._spec.groups[group].kind]
            optimiser.state[parameter] = {moment: _start(moment, parameter) for moment in moments}
        return {parameter: state for o in self._optimisers for parameter, state in o.state.items()}


def _norm(parameters: list[nn.Parameter]) -> Float[Tensor, ""]:
    """The norm of the gradients together; every parameter has one."""
    return nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None]).float()


def _start(moment: str, parameter: nn.Parameter) -> Tensor:
    """What a parameter's moment is before the first step: 0, of a count as of values."""
    if moment == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
