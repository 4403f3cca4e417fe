"""Outputs of blocks: as targets against data2vec's formula in loops, and from encoders of both kinds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onestage.encoders import Vit
from onestage.methods import METHODS
from onestage.ops import block_of, place_of
from onestage.spec import UserError
from onestage.targets import Encoded
from onestage.types import Geometry, Layer, Piece, Tokens, View, Wanted
from small import lean
from test_objective import batch_for, objective_for


def view(pixels: Tensor) -> View:
    b = pixels.shape[0]
    return View(pixels, Geometry(torch.zeros(b, 4), torch.zeros(b, dtype=torch.bool)))


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_an_encoder_gives_the_outputs_of_its_last_blocks(arch: str, pool: str) -> None:
    torch.manual_seed(0)
    encoder = Vit(arch=arch, size=64, patch=16, width=48, depth=4, heads=2, pool=pool).build(frozenset({"drop"})).eval()
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 3:8] = True
    piece = Piece(view(torch.rand(2, 3, 64, 64)), hidden=hidden, hides=5, mode="drop")
    plain = encoder({"image": piece})
    tokens = encoder({"image": piece._replace(layers=3)})
    assert plain.layers == () and len(tokens.layers) == 3 and torch.equal(plain.rows, tokens.rows)
    last = encoder.backbone.norm(tokens.layers[-1].rows)
    torch.testing.assert_close(last, tokens.rows, rtol=0, atol=1e-6)
    if pool == "cls":
        torch.testing.assert_close(encoder.backbone.norm(tokens.layers[-1].pooled), tokens.pooled, rtol=0, atol=1e-6)
    else:
        torch.testing.assert_close(tokens.layers[0].pooled, tokens.layers[0].rows.mean(dim=1))
    assert not torch.allclose(tokens.layers[0].rows, tokens.layers[1].rows, atol=1e-3)
    assert len(encoder({"image": piece._replace(layers=9)}).layers) == 4, "all of them, where there are fewer"
    assert not any(block._forward_hooks for block in encoder.backbone.blocks), "nothing stays behind"


def tokens_of(layers: int) -> Tokens:
    noise = torch.Generator().manual_seed(1)
    found = tuple(
        Layer(3 * torch.randn(2, 4, 5, generator=noise) + 1, torch.randn(2, 5, generator=noise)) for _ in range(layers)
    )
    cells = torch.arange(4).expand(2, -1)
    return Tokens(torch.randn(2, 4, 5), torch.randn(2, 5), place_of(cells), (2, 2), None, found)


def normed(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / (variance + 1e-5) ** 0.5 for value in values]


def test_the_mean_of_blocks_equals_data2vecs_formula() -> None:
    """Each of the last three blocks brought to mean 0 and variance 1, their mean, and that once more."""
    tokens = tokens_of(4)
    maker = Encoded(encoder="average", rows="hidden", blocks=(1, 2, 3), norm="layer").build(5)
    cells = torch.tensor([[2, 0], [1, 3]])
    rows = maker(tokens, Wanted(cells, (2, 2), None), None).rows
    for sample in range(2):
        for m in range(2):
            each = [normed(layer.rows[sample, cells[sample, m]].double().tolist()) for layer in tokens.layers[1:]]
            expected = normed([sum(values) / 3 for values in zip(*each, strict=True)])
            torch.testing.assert_close(rows[sample, m].double(), torch.tensor(expected).double(), rtol=1e-4, atol=1e-4)


def test_one_block_is_left_as_it_is_and_a_shallow_encoder_gives_its_first() -> None:
    tokens, wanted = tokens_of(2), Wanted(torch.tensor([[-1, 1], [-1, 0]]), (2, 2), None)
    rows = Encoded(encoder="average", rows="kept+cls", blocks=(2,)).build(5)(tokens, wanted, None).rows
    assert torch.equal(rows[:, 0], tokens.layers[0].pooled) and torch.equal(rows[1, 1], tokens.layers[0].rows[1, 0])
    assert torch.equal(block_of(tokens, 7).rows, tokens.layers[0].rows)


def test_tokens_without_outputs_of_blocks_are_refused() -> None:
    maker = Encoded(encoder="average", rows="all", blocks=(1,)).build(5)
    with pytest.raises(UserError, match="'average' does not give the outputs of its blocks"):
        maker(tokens_of(0), Wanted(torch.zeros(2, 1, dtype=torch.long), (2, 2), None), None)


def test_data2vec_asks_its_average_for_six_blocks_of_the_whole_picture() -> None:
    method = lean(METHODS["data2vec"])
    objective, seen = objective_for(method), []
    objective.encoder("average").register_forward_pre_hook(lambda _, given: seen.append(given[0]["target"]))
    represented = objective.represent(batch_for(method), {})
    assert [piece.layers for piece in seen] == [6] and seen[0].hidden is None
    target = represented.targets["features"].rows
    torch.testing.assert_close(target.mean(-1), torch.zeros(target.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1, unbiased=False), torch.ones(target.shape[:2]), atol=1e-3, rtol=0)
