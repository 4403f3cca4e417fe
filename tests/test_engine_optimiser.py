"""Optimiser groups against plain torch and against rules written out in the test."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from onestage.engine.groups import Group, Optimiser
from onestage.engine.optimiser import Optimisers
from onestage.engine.schedule import Cosine
from onestage.spec import UserError

COSINE = Cosine(warmup=0.0)
"""From the peak at once; used where the learning rate does not matter."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 4)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.fc(self.norm(rows)).tanh()


class Tower(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(3, 4)
        self.pos_embed = nn.Parameter(torch.randn(5, 4))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.patch_embed(rows) + self.pos_embed
        for block in self.blocks:
            rows = block(rows)
        return self.head(self.norm(rows))


def tower(seed: int = 0, depth: int = 2) -> Tower:
    torch.manual_seed(seed)
    return Tower(depth)


def one(group: Group) -> Optimiser:
    return Optimiser(groups={"all": group}, reference_batch=8)


def backward(model: nn.Module, seed: int) -> None:
    rows = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(seed))
    model(rows).square().mean().backward()


def train(model: nn.Module, optimisers: Optimisers, steps: range, schedule: Cosine, total: int = 20) -> None:
    for step in steps:
        optimisers.set_lr(schedule, step, total)
        backward(model, step)
        optimisers.clip()
        optimisers.step()
        optimisers.zero_grad()


def test_steps_are_those_of_adamw_with_the_split_written_by_hand() -> None:
    mine, other = tower(), tower()
    spec = one(Group(lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.3, no_decay=("pos_embed",), clip=0.05))
    schedule = Cosine(warmup=0.25, start=1e-4, end=1e-3)
    optimisers = Optimisers(mine.named_parameters(), spec, batch=8)
    train(mine, optimisers, range(12), schedule)

    exempt = [p for n, p in other.named_parameters() if p.ndim < 2 or n == "pos_embed"]
    decayed = [p for n, p in other.named_parameters() if not (p.ndim < 2 or n == "pos_embed")]
    plain = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.3}, {"params": exempt, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-6,
        foreach=False,
    )
    for step in range(12):
        rate = 1e-4 + (1e-2 - 1e-4) * step / 4
        if step >= 5:
            rate = 1e-3 + (1e-2 - 1e-3) * (1 + math.cos(math.pi * (step - 5) / 15)) / 2
        for group in plain.param_groups:
            group["lr"] = rate
        backward(other, step)
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.05)
        plain.step()
        plain.zero_grad()
    for (name, parameter), expected in zip(mine.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6, msg=name)


def shrunk(model: nn.Module, group: Group) -> set[str]:
    """Names of the parameters that decay: with zero gradients nothing else moves a parameter."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimisers = Optimisers(model.named_parameters(), one(group), batch=8)
    optimisers.set_lr(COSINE, 0, 10)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimisers.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_which_parameters_decay() -> None:
    def model() -> Tower:
        built = tower()
        for parameter in built.parameters():
            nn.init.ones_(parameter)
        return built

    matrices = {n for n, p in tower().named_parameters() if p.ndim > 1}
    assert shrunk(model(), Group(lr=0.1)) == matrices
    assert shrunk(model(), Group(lr=0.1, no_decay=("pos_*",))) == matrices - {"pos_embed"}
    assert shrunk(model(), Group(lr=0.1, weight_decay=0.0)) == set()
    assert shrunk(model(), Group(lr=0.1, decay=("head.bias",))) == matrices | {"head.bias"}
    everything = {n for n, _ in tower().named_parameters()}
    always = Group(lr=0.1, decay_vectors="always", no_decay=("*norm*",))
    assert shrunk(model(), always) == {n for n in everything if "norm" not in n}


def test_a_bias_of_two_axes_does_not_decay() -> None:
    model = nn.Module()
    model.bias = nn.Parameter(torch.ones(2, 2))
    model.relative_position_bias_table = nn.Parameter(torch.ones(2, 2))
    assert shrunk(model, Group(lr=0.1)) == {"relative_position_bias_table"}


def test_each_group_is_clipped_by_its_own_norm() -> None:
    model = tower()
    groups = {
        "head": Group(lr=0.1, match=("head.*", "norm.*")),
        "rest": Group(lr=0.1, clip=1e-3),
    }
    optimisers = Optimisers(model.named_parameters(), Optimiser(groups=groups, reference_batch=8), batch=8)
    backward(model, 0)
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    in_head = {name for name in before if name.startswith(("head.", "norm."))}

    def norm(names: set[str]) -> float:
        return math.sqrt(sum(float(before[name].double().square().sum()) for name in names))

    total = optimisers.clip()
    assert isinstance(total, Tensor)
    assert total.item() == pytest.approx(norm(set(before)), rel=1e-5)
    assert optimisers.norms["head"].item() == pytest.approx(norm(in_head), rel=1e-5)
    assert optimisers.norms["rest"].item() == pytest.approx(norm(set(before) - in_head), rel=1e-5)
    for name, parameter in model.named_parameters():
        factor = 1.0 if name in in_head else 1e-3 / (norm(set(before) - in_head) + 1e-6)
        torch.testing.assert_close(parameter.grad, before[name] * factor, rtol=1e-5, atol=1e-12)


def test_the_norm_tells_of_a_gradient_that_is_not_finite() -> None:
    model = tower()
    optimisers = Optimisers(model.named_parameters(), one(Group(lr=0.1, clip=1.0)), batch=8)
    assert optimisers.clip().item() == 0.0  # no gradients yet
    backward(model, 0)
    model.head.bias.grad[0] = float("inf")
    assert not optimisers.clip().isfinite()


def test_a_frozen_group_stays_without_decay_or_moments_until_its_step() -> None:
    model = tower()
    groups = {"head": Group(lr=0.1, match=("head.*",), freeze_until=3), "rest": Group(lr=0.1)}
    optimisers = Optimisers(model.named_parameters(), Optimiser(groups=groups, reference_batch=8), batch=8)
    start = model.head.weight.detach().clone()
    other = model.patch_embed.weight.detach().clone()
    train(model, optimisers, range(3), COSINE)
    assert torch.equal(model.head.weight, start)
    assert not torch.equal(model.patch_embed.weight, other)
    assert optimisers.state()["head.weight.step"] == 0
    assert optimisers.set_lr(COSINE, 2, 20)["head"] == 0.0
    train(model, optimisers, range(3, 4), COSINE)
    assert not torch.equal(model.head.weight, start)
    assert optimisers.state()["head.weight.step"] == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loaded_state_goes_on_bit_by_bit(layout: torch.memory_format) -> None:
    def build() -> tuple[nn.Conv2d, Optimisers]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 2).to(memory_format=layout)
        return model, Optimisers(model.named_parameters(), one(Group(lr=0.1, clip=1.0)), batch=8)

    def go(model: nn.Conv2d, optimisers: Optimisers, steps: range) -> None:
        for step in steps:
            optimisers.set_lr(COSINE, step, 10)
            images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step))
            model(images).square().mean().backward()
            optimisers.clip()
            optimisers.step()
            optimisers.zero_grad()

    model, optimisers = build()
    go(model, optimisers, range(4))
    saved = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in optimisers.state().items()}
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    go(model, optimisers, range(4, 8))

    again, restored = build()
    again.load_state_dict(weights)
    restored.load(saved)
    go(again, restored, range(4, 8))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    for key, tensor in optimisers.state().items():
        assert torch.equal(tensor, restored.state()[key]), key


def test_state_is_keyed_by_name_and_refuses_another_model() -> None:
    model = nn.Linear(2, 3)
    optimisers = Optimisers(model.named_parameters(), one(Group(lr=0.1)), batch=8)
    state = optimisers.state()
    moments = ("exp_avg", "exp_avg_sq", "step")
    assert set(state) == {f"{name}.{moment}" for name in ("weight", "bias") for moment in moments}
    with pytest.raises(UserError, match=r"weight\.exp_avg is missing"):
        optimisers.load({key: tensor for key, tensor in state.items() if key != "weight.exp_avg"})
    with pytest.raises(UserError, match=r"other\.step has no parameter here"):
        optimisers.load({**state, "other.step": torch.zeros(())})
    with pytest.raises(UserError, match=r"weight\.exp_avg has shape \(3,\), expected \(3, 2\)"):
        optimisers.load({**state, "weight.exp_avg": torch.zeros(3)})


def test_layer_decay_is_beits() -> None:
    model, decay = tower(depth=3), 0.5
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    spec = one(Group(lr=1e-2, layer_decay=decay, weight_decay=0.0))
    optimisers = Optimisers(model.named_parameters(), spec, batch=8)
    optimisers.set_lr(Cosine(warmup=0.0), 0, 10)
    optimisers.step()
    # AdamW's first step moves a parameter by its learning rate; blocks are layers 1 to 3, the top is layer 4.
    layers = {
        "patch_embed": 0,
        "pos_embed": 0,
        "blocks.0": 1,
        "blocks.1": 2,
        "blocks.2": 3,
        "norm": 4,
        "head": 4,
    }
    for name, parameter in model.named_parameters():
        layer = next(layers[key] for key in layers if name.startswith(key))
        moved = 1 - parameter.detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 1e-2 * decay ** (4 - layer)), rtol=1e-3, atol=0)


def test_layer_decay_without_one_tower_is_refused() -> None:
    with pytest.raises(UserError, match="exactly one tower, found 0"):
        Optimisers(nn.Linear(2, 2).named_parameters(), one(Group(lr=0.1, layer_decay=0.5)), batch=8)
    two = nn.ModuleDict({"image": tower(), "text": tower()})
    with pytest.raises(UserError, match="exactly one tower, found 2"):
        Optimisers(two.named_parameters(), one(Group(lr=0.1, layer_decay=0.5)), batch=8)


def test_the_first_matching_group_wins_and_every_parameter_has_one() -> None:
    model = tower()
    groups = {"head": Group(lr=1.0, match=("head.*",)), "rest": Group(lr=2.0)}
    optimisers = Optimisers(model.named_parameters(), Optimiser(groups=groups, reference_batch=8), batch=8)
    backward(model, 0)
    optimisers.clip()
    head = math.sqrt(sum(float(p.grad.square().sum()) for p in model.head.parameters()))
    assert optimisers.norms["head"].item() == pytest.approx(head, rel=1e-5)

    only = Optimiser(groups={"head": groups["head"]}, reference_batch=8)
    with pytest.raises(UserError, match="no optimiser group matches parameter 'pos_embed'"):
        Optimisers(model.named_parameters(), only, batch=8)
    typo = Optimiser(groups={"head": Group(lr=1.0, match=("haed.*",)), "rest": groups["rest"]}, reference_batch=8)
    with pytest.raises(UserError, match=r"'head' \(match \['haed\.\*'\]\) has no parameter"):
        Optimisers(model.named_parameters(), typo, batch=8)


def test_parameters_without_gradient_need_no_group() -> None:
    model = tower()
    for parameter in model.blocks.parameters():
        parameter.requires_grad_(False)
    groups = {"rest": Group(lr=1.0, match=("head.*", "norm.*", "patch_embed.*", "pos_embed"))}
    optimisers = Optimisers(model.named_parameters(), Optimiser(groups=groups, reference_batch=8), batch=8)
    assert not any(key.startswith("blocks") for key in optimisers.state())
