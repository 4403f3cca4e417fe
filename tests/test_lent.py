"""Memory that is lent again: never while somebody holds it, by whatever thread, process or view."""

from __future__ import annotations

import gc
import multiprocessing
import os
from functools import partial

import pytest
import torch
from torch import Tensor

from loading import flat, made, same, sized
from onestage.data import Digits
from onestage.data.parallel import none_lost
from onestage.engine.loader import batches
from onestage.engine.pieces import on_device
from onestage.engine.slots import MOST, STATE, Lenders, Slot, Slots
from onestage.lent import Reused, lent
from onestage.spec import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
CPU = torch.device("cpu")


def test_memory_comes_back_when_its_last_view_goes() -> None:
    back: list[int] = []
    memory = torch.arange(8, dtype=torch.uint8)
    whole = lent(memory, partial(back.append, 1))
    view = whole.view(2, 4)[1:]
    assert whole.data_ptr() == memory.data_ptr()
    del whole
    assert not back and view.tolist() == [[4, 5, 6, 7]]
    del view
    assert back == [1]


def test_what_autograd_keeps_is_held() -> None:
    back: list[int] = []
    pixels = lent(torch.ones(16, dtype=torch.uint8), partial(back.append, 1)).view(torch.float32)
    loss = (pixels * torch.ones(4, requires_grad=True)).sum()
    del pixels
    assert not back
    loss.backward()
    assert back == [1]


def test_a_buffer_is_used_again_only_when_nobody_holds_it() -> None:
    memory = Reused()
    one, other = memory.take(64), memory.take(64)
    places = {one.data_ptr(), other.data_ptr()}
    assert len(places) == 2
    del one
    smaller, again = memory.take(32), memory.take(64)
    assert smaller.data_ptr() not in places and again.data_ptr() in places
    assert again.data_ptr() != other.data_ptr() and again.numel() == 64


def test_a_slot_is_used_again_only_when_its_reader_let_go_of_it() -> None:
    slots, lenders = Slots(), Lenders()

    def crossed() -> tuple[Slot, Tensor]:
        slots.take(32)
        slot = slots.last(0)
        return slot, lenders.memory(slot)[STATE:]

    (first, one), (second, two) = crossed(), crossed()
    assert (first.number, second.number) == (0, 1)
    assert first.memory is not None and second.memory is not None
    kept = one.view(4, 8)[2:].fill_(7)
    del one, two
    assert crossed()[0] == Slot(0, 1, None), "the second is free, and its reader knows it"
    assert kept.eq(7).all()
    del kept
    assert crossed()[0] == Slot(0, 0, None)


def test_whoever_keeps_every_batch_gets_new_memory() -> None:
    slots, lenders = Slots(), Lenders()
    held = []
    for number in range(MOST + 3):
        slots.take(16).fill_(number)
        slot = slots.last(0)
        assert (slot.number, slot.memory is None) == (number if number < MOST else -1, False)
        held.append(lenders.memory(slot)[STATE:])
    assert [int(one[0]) for one in held] == list(range(MOST + 3))


def test_a_child_gives_nothing_back_that_its_parent_holds() -> None:
    slots, lenders = Slots(), Lenders()
    slots.take(16)
    slot = slots.last(0)
    memory = lenders.memory(slot)
    assert int(memory[0]) == 1
    child = os.fork()
    if not child:
        del memory
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert int(memory[0]) == 1


# --- Batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keeps", [0, 1, 20])
def test_batches_that_are_kept_do_not_change(workers: int, keeps: int) -> None:
    """More batches than there are buffers, of which none, one or all are held."""
    data = made(Digits(), sized("siamese_feature"), batch=4)
    alone = [data[step] for step in range(20)]
    held: list = []
    for step, batch in enumerate(batches(made(Digits(), sized("siamese_feature"), batch=4), 0, 20, workers)):
        assert same(batch, alone[step])
        held = [*held, (step, batch, on_device(batch, CPU))][-keeps:] if keeps else []
        for number, one, there in held:
            assert same(one, alone[number])
            for name, view in there.views.items():
                assert torch.equal(view.pixels, alone[number].views[name].pixels)


def test_buffers_are_used_again() -> None:
    places = [one.views["view1"].pixels.data_ptr() for one in batches(made(Digits(), sized("mae")), 0, 24, 1)]
    assert len(set(places)) <= MOST


def test_a_killed_worker_ends_the_run_and_what_it_gave_stays() -> None:
    alone = made(Digits(), sized("mae"))[0]
    stream = batches(made(Digits(), sized("mae")), 0, 10_000, 1)
    first = next(stream)
    (worker,) = multiprocessing.active_children()
    with pytest.raises(UserError, match=r"a loading process was killed.*; start again"), none_lost("start again"):
        worker.kill()  # from here on torch raises, wherever the signal finds this process
        for batch in stream:
            assert batch.number[0] > 0
    gc.collect()
    assert same(first, alone)


def test_on_its_device_a_batch_is_what_it_was() -> None:
    batch = made(Digits(), sized("mae"))[0]
    there = on_device(batch, CPU)
    assert same(there, batch)
    assert flat(there).keys() == flat(batch).keys()
