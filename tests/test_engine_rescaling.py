"""Learning rates follow the batch, and optimiser specs check their numbers."""

from __future__ import annotations

import pytest
from torch import nn

from onestage.engine.groups import Group, Optimiser, scale_note
from onestage.engine.optimiser import Optimisers
from onestage.engine.schedule import Cosine
from onestage.spec import UserError, from_plain, to_plain


def test_rescaling_follows_the_rule() -> None:
    groups = {"all": Group(lr=1.5e-3)}
    linear = Optimiser(groups=groups, reference_batch=4096)
    root = Optimiser(groups=groups, reference_batch=4096, rule="sqrt")
    none = Optimiser(groups=groups, reference_batch=4096, rule="none")
    assert linear.rescaled(1.5e-3, 256) == pytest.approx(9.375e-5, rel=1e-12)
    assert root.rescaled(1.5e-3, 256) == pytest.approx(3.75e-4, rel=1e-12)
    assert none.rescaled(1.5e-3, 256) == 1.5e-3
    note = "learning rate 1.5e-3 at batch 4096 -> {} at batch 256 ({})"
    assert scale_note(linear, 256) == note.format("9.4e-5", "linear rule")
    assert scale_note(root, 256) == note.format("3.8e-4", "sqrt rule")
    assert scale_note(none, 256) == note.format("1.5e-3", "not rescaled")
    assert scale_note(linear, 4096) == "learning rate 1.5e-3 at batch 4096, its reference batch"
    two = Optimiser(groups={"image": Group(lr=2e-4), "text": Group(lr=2e-5)}, reference_batch=4096)
    assert [line.split(":")[0] for line in scale_note(two, 256).splitlines()] == ["image", "text"]


def test_start_and_end_rescale_with_the_peak() -> None:
    spec = Optimiser(groups={"all": Group(lr=1.6e-3)}, reference_batch=4096)
    optimisers = Optimisers(nn.Linear(2, 2).named_parameters(), spec, batch=256)
    schedule = Cosine(warmup=0.5, start=1.6e-5, end=3.2e-5)
    assert optimisers.peaks() == {"all": pytest.approx(1e-4)}
    assert optimisers.set_lr(schedule, 0, 10)["all"] == pytest.approx(1e-6)
    assert optimisers.set_lr(schedule, 4, 10)["all"] == pytest.approx(1e-4)
    assert optimisers.set_lr(schedule, 10, 10)["all"] == pytest.approx(2e-6)


def test_specs_round_trip_and_check_their_numbers() -> None:
    spec = Optimiser(groups={"all": Group(lr=1e-3, clip=3.0, layer_decay=0.75)}, reference_batch=2048, rule="sqrt")
    assert from_plain(Optimiser, to_plain(spec)) == spec
    with pytest.raises(UserError, match=r"groups\.all\.clip"):
        from_plain(Optimiser, {"groups": {"all": {"lr": 1e-3, "clip": -1}}, "reference_batch": 8})
