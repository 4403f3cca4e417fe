"""What each rank of a world computes from its slice of one global batch, for the tests of `distributed`.

Rank 0 writes it, as if it had been computed by one process; what ranks must agree on is checked on all of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from onestage.distributed import Reducer, agreed, gather, mean, rank, synchronise, told_anywhere, total, world
from onestage.engine.together import joined
from onestage.likelihood import Boltzmann, Centred, CrossCorrelation, Gaussian, Prototypes, Sigmoid, UniGrad
from onestage.likelihood.average import weighted_mean
from onestage.roles import Likelihood, Regulariser
from onestage.types import Target

BATCH, WIDE, WIDTH = 8, 6, 5
LIKELIHOODS = {
    **{
        f"boltzmann/{same}/{sides}": Boltzmann(over="batch", same_text=same, sides=sides)
        for same in ("positive", "ignore", "negative")
        for sides in ("both", "guess")
    },
    **{f"sigmoid/{same}": Sigmoid(same_text=same, bias=-2.0) for same in ("positive", "ignore", "negative")},
    "gaussian": Gaussian(),
    "centred": Centred(),
    "prototypes": Prototypes(count=7),
    "cross_correlation": CrossCorrelation(off_diagonal=0.1),
    "queue": Boltzmann(over="queue", size=11),
    "unigrad": UniGrad(weight=0.7),
    "table": Boltzmann(over="table", temperature_is="learned", temperature=0.5),
}


class Towers(nn.Module):
    """A guess and a target of each sample, both trained, as the towers of CLIP are; and a table. `spare` is unused."""

    def __init__(self, likelihood: Likelihood | Regulariser) -> None:
        super().__init__()
        self.guess, self.target = nn.Linear(WIDE, WIDTH), nn.Linear(WIDE, WIDTH)
        self.table = nn.Parameter(torch.randn(4, WIDTH))
        self.spare = nn.Linear(2, 2)
        self.likelihood = likelihood


def slice_of(tensor: Tensor) -> Tensor:
    """This rank's rows of a global batch."""
    return tensor.chunk(world())[rank()]


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def of_likelihoods() -> dict[str, Tensor]:
    """Loss and gradients of every likelihood, with and without ragged weights, in both precisions."""
    found = {}
    for precision in (torch.float32, torch.float64):
        for name, likelihood in LIKELIHOODS.items():
            for weighted in (False,) if name == "cross_correlation" else (False, True):
                torch.manual_seed(0)
                towers = Towers(likelihood.build(WIDTH)).to(precision)
                x, y = torch.randn(BATCH, 1, WIDE, dtype=precision), torch.randn(BATCH, 1, WIDE, dtype=precision)
                identity, weight = torch.tensor([0, 1, 2, 0, 3, 1, 0, 3]), torch.tensor([1, 0, 2, 0, 0, 0.5, 3, 1])
                weight = weight.to(precision).unsqueeze(1) if weighted else None

                rows = towers.table if name == "table" else towers.target(slice_of(y))
                part = None if weight is None else slice_of(weight)
                loss = towers.likelihood(towers.guess(slice_of(x)), Target(rows, slice_of(identity), part))
                reducer = Reducer(towers)
                reducer.expect([loss])
                loss.backward()
                key = f"{str(precision)[6:]}/{name}/{'weighted' if weighted else 'plain'}"
                found[f"{key}/loss"] = mean(loss.detach())
                found |= {f"{key}/{part}": gradient for part, gradient in gradients(towers).items()}
    return found


def of_collectives() -> dict[str, Tensor]:
    """`gather`, `mean` and `total` with their gradients, in a loss that each rank computes its own share of."""
    torch.manual_seed(1)
    rows = torch.randn(BATCH, 3, 2, dtype=torch.float64)
    weights = torch.randn(BATCH, BATCH, dtype=torch.float64)
    own = slice_of(rows).clone().requires_grad_()
    everything = gather(own)
    centre = mean(own.mean(dim=0))
    share = slice_of(weights) @ (everything - centre).flatten(1).sin().sum(dim=1)
    loss = share.square().mean() + total(own.sum()) ** 2 * 1e-3 * centre.cos().sum()
    loss.backward()
    assert own.grad is not None
    flags = gather(slice_of(torch.arange(BATCH) % 3 == 0))
    assert torch.equal(flags, torch.arange(BATCH) % 3 == 0)
    assert torch.equal(gather(slice_of(torch.arange(BATCH))), torch.arange(BATCH))
    return {"gathered": everything.detach(), "centre": centre.detach()} | {"gradient": gather(own.grad) / world()}


def of_weighted_mean() -> dict[str, Tensor]:
    weight = torch.tensor([[0.0, 0], [0, 0], [1, 2], [0, 0], [0, 3], [0, 0], [0.5, 0], [0, 0]])
    losses = torch.arange(16.0).view(8, 2)
    return {
        "ragged": mean(weighted_mean(slice_of(losses), slice_of(weight))),
        "nothing": mean(weighted_mean(slice_of(losses), torch.zeros_like(slice_of(weight)))),
    }


def of_batch_norm() -> dict[str, Tensor]:
    """Three steps of a batch norm between two layers, then evaluation."""
    found = {}
    for name, norm, shape in (
        ("1d", nn.BatchNorm1d(4), ()),
        ("2d", nn.BatchNorm2d(4), (3, 3)),
        ("slow", nn.BatchNorm2d(4, momentum=None), (2, 3)),
        ("plain", nn.BatchNorm1d(4, affine=False, track_running_stats=False), (3,)),
    ):
        torch.manual_seed(2)
        network = nn.Sequential(nn.Sequential(norm)).double()
        if norm.affine:
            nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        names = list(network.state_dict())
        synchronise(network)
        assert list(network.state_dict()) == names
        reducer = Reducer(network)
        for step in range(3):
            values = 100 + 5 * torch.randn(BATCH, 4, *shape, dtype=torch.float64)
            own = slice_of(values).clone().requires_grad_()
            slope = slice_of(torch.randn(BATCH, 4, *shape, dtype=torch.float64))

            loss = (network(own) * slope).sin().mean()
            if norm.affine:
                reducer.expect([loss])
            loss.backward()
            assert own.grad is not None
            found[f"{name}/{step}/input"] = gather(own.grad) / world()
        found |= {f"{name}/{part}": gradient for part, gradient in gradients(network).items()}
        found |= {f"{name}/{part}": value.double() for part, value in network.state_dict().items()}
        network.eval()
        found[f"{name}/evaluated"] = gather(network(own).detach())
    return found


def agreement() -> None:
    """Any rank's word is everyone's."""
    last = rank() == world() - 1
    assert agreed(last) is True
    assert agreed(False) is False
    assert told_anywhere(None) is None
    told = told_anywhere("the disk is full: é" if last else None)
    assert told is not None
    assert told == (world() - 1, "the disk is full: é")


def checks(folder: Path) -> None:
    with joined():
        found = {}
        for of in (of_likelihoods, of_collectives, of_weighted_mean, of_batch_norm):
            found |= {f"{of.__name__}/{name}": tensor.contiguous() for name, tensor in of().items()}
        agreement()
        if rank() == 0:
            save_file(found, folder / f"{world()}.safetensors")
