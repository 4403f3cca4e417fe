"""Mixup and CutMix: pixels, rectangles and labels against timm; the same for any number of processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from onestage.data import Quarantine, open_source
from onestage.engine.loader import Batches
from onestage.likelihood import Bernoulli, Boltzmann
from onestage.methods import METHODS
from onestage.objective import unblended
from onestage.spec import UserError
from onestage.types import Batch, Blended, Target
from onestage.views import Blend, Blending, Crop, blend

LABELS, OTHERS = torch.tensor([0, 3, 3, 1]), torch.tensor([3, 0, 1, 3])
SHARE = 0.7


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blended_target(table: Tensor) -> Target:
    return Target(table, LABELS, None, blend=Blended(torch.full((4,), SHARE), OTHERS))


def timm_truth(smoothing: float) -> Tensor:
    """timm's own mixing of labels, whose partner of sample i is the one as far from the end."""
    from timm.data.mixup import mixup_target

    order = [0, 2, 3, 1]  # labels 0 3 1 3: flipped, these are 3 1 3 0, the partners of 0 3 1 3
    mixed = mixup_target(LABELS[order], 5, SHARE, smoothing)
    assert LABELS[order].flip(0).tolist() == OTHERS[order].tolist()
    return mixed[torch.tensor(order).argsort()]


@pytest.mark.parametrize("how", ["both", "shares"])
def test_bernoulli_equals_loops_and_timm(how) -> None:
    from timm.loss import BinaryCrossEntropy

    guess, table = rows(0, 4, 1, 6).requires_grad_(), rows(1, 5, 6)
    ours = Bernoulli(blended=how).build()(guess, blended_target(table))
    ours.backward()
    same, total = guess[:, 0].detach().double().requires_grad_(), torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for c in range(5):
            share = SHARE * (LABELS[i] == c).item() + (1 - SHARE) * (OTHERS[i] == c).item()
            truth = float(share > 0) if how == "both" else share
            p = 1 / (1 + torch.exp(-(same[i] * table[c].double()).sum()))
            total = total - (truth * torch.log(p) + (1 - truth) * torch.log(1 - p)) / 20
    total.backward()
    assert ours.item() == pytest.approx(total.item(), rel=1e-6)
    torch.testing.assert_close(guess.grad[:, 0], same.grad.float(), rtol=1e-5, atol=1e-7)
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=0.0 if how == "both" else None)
    assert ours.item() == pytest.approx(theirs(guess[:, 0] @ table.T, timm_truth(0.0)).item(), rel=1e-5)


def test_a_table_of_blended_labels_is_timms_soft_cross_entropy() -> None:
    from timm.loss import SoftTargetCrossEntropy

    guess, table = rows(0, 4, 1, 6), rows(1, 5, 6)
    ours = Boltzmann(over="table", smoothing=0.1).build()(guess, blended_target(table))
    theirs = SoftTargetCrossEntropy()(guess[:, 0] @ table.T, timm_truth(0.1))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    plain = Boltzmann(over="table", smoothing=0.1).build()(guess, Target(table, LABELS, None))
    assert ours.item() != pytest.approx(plain.item(), rel=1e-3)


def test_pixels_are_mixed_and_cut() -> None:
    whole = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mixed, cut = whole.clone(), whole.clone()
    blend(mixed, Blending(0.3))
    blend(cut, Blending(0.5, (1, 2, 4, 8)))
    for i in range(4):
        for place in np.ndindex(3, 6, 8):
            own, other = whole[i][place].item(), whole[i ^ 1][place].item()
            assert abs(mixed[i][place].item() - (0.3 * own + 0.7 * other)) <= 0.5 + 1e-4
            inside = 1 <= place[1] < 4 and 2 <= place[2] < 8
            assert cut[i][place].item() == (other if inside else own)


def test_rectangles_and_shares_are_those_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.data import mixup as theirs

    for seed in range(50):
        share, box = Blend(mixup=0.0).draw(np.random.default_rng(seed), 48)
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(theirs.np.random, "randint", lambda low, high, size=None, rng=rng: rng.integers(low, high))
        (top, bottom, left, right), lam = theirs.cutmix_bbox_and_lam((1, 3, 48, 48), rng.beta(1.0, 1.0))
        assert box == (top, left, bottom, right) and share == pytest.approx(lam)


def test_what_is_drawn() -> None:
    drawn = [Blend().draw(np.random.default_rng(seed), 32) for seed in range(4000)]
    assert abs(np.mean([one.box is not None for one in drawn]) - 0.5) < 0.03
    mixes = np.array([one.share for one in drawn if one.box is None])
    assert abs(mixes.mean() - 0.5) < 0.03 and abs(mixes.var() - 0.8**2 / (1.6**2 * 2.6)) < 0.01
    assert all(Blend(cutmix=0.0).draw(np.random.default_rng(seed), 32).box is None for seed in range(20))
    with pytest.raises(ValueError, match="neither mixup nor cutmix"):
        Blend(mixup=0.0, cutmix=0.0)


def made(method, batch: int = 8, rank: int = 0, world: int = 1) -> Batch:
    views = {name: dataclasses.replace(view, size=32) for name, view in method.views.items()}
    method = dataclasses.replace(method, views=views)
    source = open_source("digits")
    return Batches(source, method, {}, batch, 0, None, Quarantine(None), None, 9, rank, world)[3]


def test_a_batch_is_blended_and_so_are_its_labels() -> None:
    mixed, plain = made(METHODS["deit"]), made(unblended(METHODS["deit"]))
    found = mixed.blends["view1"]
    assert mixed.label.equal(plain.label) and found.label.equal(plain.label[torch.arange(8) ^ 1])
    assert len(set(found.share.tolist())) == 1 and 0 < found.share[0] < 1 and not plain.blends
    one, other = plain.views["view1"].pixels.float(), plain.views["view1"].pixels.float()[torch.arange(8) ^ 1]
    pixels = mixed.views["view1"].pixels.float()
    assert ((pixels - one).abs() <= (other - one).abs() + 0.5).all() and not pixels.equal(one)


def test_the_number_of_processes_does_not_change_a_batch() -> None:
    whole, parts = made(METHODS["deit3"]), [made(METHODS["deit3"], rank=rank, world=2) for rank in range(2)]
    assert whole.views["view1"].pixels.equal(torch.cat([part.views["view1"].pixels for part in parts]))
    for field in range(2):
        assert whole.blends["view1"][field].equal(torch.cat([part.blends["view1"][field] for part in parts]))


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="in pairs, but a batch has 7"):
        made(METHODS["deit"], batch=7)
    with pytest.raises(UserError, match="blend of two samples"):
        dataclasses.replace(METHODS["clip"], views={"view1": Crop(blend=Blend())})
    with pytest.raises(UserError, match="classes of a table"):
        term = dataclasses.replace(METHODS["mae"].terms["pixels"], likelihood=Bernoulli())
        dataclasses.replace(METHODS["mae"], terms={"pixels": term})
