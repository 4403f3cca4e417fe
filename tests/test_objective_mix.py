"""Two images in one input: what is mixed, whose rows are whose, and that partners are nothing but partners."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onestage.methods import METHODS
from onestage.objective import Objective
from onestage.objective.mix import hidden_of, mix, own, partner
from onestage.ops import place_of
from onestage.spec import UserError
from onestage.types import Batch, Geometry, Tokens, View, Words
from small import lean
from test_objective import answers_for, batch_for, objective_for

MIXING = [name for name, method in METHODS.items() if any(asked.mix is not None for asked in method.inputs.values())]
TAKEN = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)


def test_partners_are_neighbours_and_need_an_even_batch() -> None:
    torch.testing.assert_close(partner(torch.arange(6)), torch.arange(6) ^ 1)
    with pytest.raises(UserError, match="must be even, not 3"):
        partner(torch.zeros(3))


def test_a_mix_shows_the_partner_where_it_takes() -> None:
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 4, 4)
    view = View(pixels, Geometry(torch.zeros(4, 4), torch.zeros(4, dtype=torch.bool)))
    mixed = mix(view, view, TAKEN, (2, 2)).pixels
    for sample in range(4):
        for cell in range(4):
            shown = mixed[sample, :, cell // 2 * 2 : cell // 2 * 2 + 2, cell % 2 * 2 : cell % 2 * 2 + 2]
            assert (shown == (sample ^ 1 if TAKEN[sample, cell] else sample)).all()


def test_each_sample_gets_its_own_rows_back() -> None:
    """Rows carry the number of the image that they show, times ten, plus their cell."""
    image = torch.where(TAKEN, (torch.arange(4) ^ 1)[:, None], torch.arange(4)[:, None])
    rows = (10 * image + torch.arange(4)).float().unsqueeze(-1)
    tokens = Tokens(rows, rows.mean(dim=1), place_of(torch.arange(4).expand(4, -1)), (2, 2), None)
    geometry = Geometry(torch.zeros(4, 4), torch.zeros(4, dtype=torch.bool))
    for slot in (0, 1):
        mine = own(tokens, TAKEN, 2, slot, geometry)
        assert (mine.rows[..., 0] // 10 == torch.arange(4)[:, None]).all()
        torch.testing.assert_close(mine.rows[..., 0] % 10, mine.place.cell.float())
        torch.testing.assert_close(mine.pooled, mine.rows.mean(dim=1))
        assert (mine.place.owner == slot).all()
        hidden = hidden_of(TAKEN, slot)
        shown = torch.ones_like(hidden).scatter(1, mine.place.cell, False)
        torch.testing.assert_close(hidden, shown)


def swapped(batch: Batch) -> Batch:
    """The batch with its pairs of partners in another order, and partners within a pair left where they are."""
    order = torch.tensor([2, 3, 0, 1])

    def take(tensor: Tensor) -> Tensor:
        return tensor[order]

    views = {
        name: View(take(view.pixels), Geometry(*(take(part) for part in view.geometry)))
        for name, view in batch.views.items()
    }
    words = None if batch.words is None else Words(take(batch.words.ids), take(batch.words.text_id))
    label = None if batch.label is None else take(batch.label)
    hidden = {name: take(mask) for name, mask in batch.hidden.items()}
    return batch._replace(number=take(batch.number), views=views, hidden=hidden, words=words, label=label)


def made(name: str) -> Objective:
    return objective_for(lean(METHODS[name])).eval()


@pytest.mark.parametrize("name", MIXING)
@torch.no_grad()
def test_permuting_pairs_of_partners_permutes_everything(name: str) -> None:
    objective, batch = made(name), batch_for(METHODS[name])
    one = objective.represent(batch, answers_for(METHODS[name]))
    other = objective.represent(swapped(batch), answers_for(METHODS[name]))
    order = torch.tensor([2, 3, 0, 1])
    for term in METHODS[name].terms:
        torch.testing.assert_close(other.guesses[term], one.guesses[term][order], atol=1e-5, rtol=1e-4)
    first, second = objective.score(one).total, objective.score(other).total
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_slot_does_not_see_its_partners_label() -> None:
    objective, batch = made("m3i"), batch_for(METHODS["m3i"])
    assert batch.label is not None
    for term in ("category1", "category2"):
        losses = []
        for changed in (None, 1):
            label = batch.label.clone()
            if changed is not None:
                label[changed] = (label[changed] + 1) % 3
            represented = objective.represent(batch._replace(label=label), {})
            weight = torch.zeros(4, 1)
            weight[0] = 1.0  # the loss of sample 0 alone, whose partner is sample 1
            target = represented.targets[term]._replace(weight=weight)
            losses.append(objective.likelihood(term)(represented.guesses[term], target))
        torch.testing.assert_close(*losses)


@torch.no_grad()
def test_kept_apart_a_row_does_not_depend_on_the_other_image() -> None:
    """With attention: own, nothing of the partner reaches a sample's rows; with attention: all, it does."""
    for name, depends in (("mixmim", False), ("m3i", True)):
        method = METHODS[name]
        objective, batch = made(name), batch_for(method)
        view = batch.views["view1"]
        pixels = view.pixels.clone()
        pixels[1] = 0.0
        changed = batch._replace(views=batch.views | {"view1": view._replace(pixels=pixels)})
        term = next(iter(method.terms))
        one, other = (objective.represent(given, {}).guesses[term][0] for given in (batch, changed))
        assert torch.allclose(one, other, atol=1e-6) != depends
