"""Hiding: constant counts, published statistics, and BEiT's algorithm written out cell by cell."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import yaml

from onestage.roles import Hide
from onestage.spec import UserError, from_plain, spec, to_yaml
from onestage.views import Block, BlockReversed, HideSpec, Random, block_wise, coverage
from onestage.views.hiding import fix_count, smallest_block


@spec
class Hidden:
    """How a recipe holds a way of hiding."""

    hide: HideSpec


EVERY_HIDE = [Random(ratio=0.75), Block(ratio=0.4), Block(cells=118, of=196), BlockReversed(ratio=0.4)]
GRIDS = [(1, 1), (1, 5), (2, 2), (3, 7), (6, 6), (8, 8), (14, 14), (16, 16)]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def centre(p: np.ndarray) -> float:
    rows, columns = p.shape
    return p[rows // 2 - 1 : rows // 2 + 1, columns // 2 - 1 : columns // 2 + 1].mean()


def edge(p: np.ndarray) -> float:
    """Mean over the four sides."""
    return np.concatenate([p[0], p[-1], p[:, 0], p[:, -1]]).mean()


def corner(p: np.ndarray) -> float:
    return np.array([p[0, 0], p[0, -1], p[-1, 0], p[-1, -1]]).mean()


# grid, target, smallest block, draws; bounds of mean count, least count, P(exact), centre, edge, corner
PUBLISHED = [
    (
        (14, 14),
        75,
        16,
        10_000,
        [(74.4, 74.6), (60, 67), (0.64, 0.70), (0.69, 0.75), (0.12, 0.17), (0.03, 0.05)],
    ),
    (
        (16, 16),
        105,
        16,
        5000,
        [(104.3, 104.5), (88, 98), (0.62, 0.69), (0.71, 0.78), (0.12, 0.17), (0.03, 0.05)],
    ),
    (
        (14, 14),
        118,
        16,
        2000,
        [(117.4, 117.65), (100, 113), (0.65, 0.73), (0.9, 0.97), (0.2, 0.32), (0.06, 0.11)],
    ),
    (
        (16, 16),
        128,
        16,
        2000,
        [(127.4, 127.6), (112, 122), (0.62, 0.71), (0.82, 0.9), (0.14, 0.21), (0.03, 0.08)],
    ),
    (
        (14, 14),
        78,
        15,
        2000,
        [(77.45, 77.7), (64, 73), (0.67, 0.75), (0.7, 0.77), (0.12, 0.18), (0.03, 0.06)],
    ),
]
Bounds = list[tuple[float, float]]


@pytest.mark.parametrize(("grid", "target", "least", "draws", "bounds"), PUBLISHED)
def test_block_wise_has_the_published_statistics(
    grid: tuple[int, int], target: int, least: int, draws: int, bounds: Bounds
) -> None:
    rng = generator(0)
    masks = np.stack([block_wise(rng, grid, target, least) for _ in range(draws)])
    counts, p = masks.sum((1, 2)), masks.mean(0)
    assert counts.max() <= target
    found = [counts.mean(), counts.min(), (counts == target).mean(), centre(p), edge(p), corner(p)]
    for value, (low, high) in zip(found, bounds, strict=True):
        assert low <= value <= high


def beit(source: random.Random, grid: tuple[int, int], target: int, least: float, largest: float) -> list[list[int]]:
    """BEiT's algorithm 1 with Python's generator and one cell at a time."""
    rows, columns = grid
    mask = [[0] * columns for _ in range(rows)]
    done = 0
    while done < target:
        cap, added = min(target - done, largest), 0
        for _ in range(10):
            area = source.uniform(least, cap)
            aspect = math.exp(source.uniform(math.log(0.3), math.log(1 / 0.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h >= rows or w >= columns:
                continue
            top, left = source.randint(0, rows - h), source.randint(0, columns - w)
            cells = [(r, c) for r in range(top, top + h) for c in range(left, left + w) if not mask[r][c]]
            if 0 < len(cells) <= cap:
                for r, c in cells:
                    mask[r][c] = 1
                added = len(cells)
                break
        if not added:
            break
        done += added
    return mask


@pytest.mark.parametrize(
    ("grid", "target", "least", "largest"),
    [((14, 14), 75, 16, None), ((14, 14), 120, 16, 30), ((8, 12), 40, 6, None)],
)
def test_block_wise_agrees_with_the_slow_formula(
    grid: tuple[int, int], target: int, least: int, largest: int | None
) -> None:
    draws, rng, source = 3000, generator(1), random.Random(1)
    ours = np.stack([block_wise(rng, grid, target, least, largest) for _ in range(draws)])
    slow = np.array([beit(source, grid, target, least, largest or target) for _ in range(draws)])
    difference = ours.mean(0) - slow.mean(0)
    assert np.abs(difference).max() < 5 * math.sqrt(2 * 0.25 / draws)
    assert np.abs(difference).mean() < 0.014
    counts, expected = ours.sum((1, 2)), slow.sum((1, 2))
    assert counts.mean() == pytest.approx(expected.mean(), abs=0.15)
    assert (counts == target).mean() == pytest.approx((expected == target).mean(), abs=0.04)


@pytest.mark.parametrize("grid", [(1, 12), (12, 1)])
def test_no_block_spans_a_whole_side(grid: tuple[int, int]) -> None:
    """On a grid of one row every block would, so BEiT's rule leaves it empty."""
    rng = generator(1)
    assert not any(block_wise(rng, grid, 6, 1).any() for _ in range(50))


def test_block_reversed_is_flat_where_block_is_not() -> None:
    """For 102 of 256 cells: .40 / .44 / .48, against .74 / .16 / .04 for blocks that are never reversed."""
    flat = coverage(BlockReversed(ratio=0.4), (16, 16), 5000, seed=0)
    assert centre(flat) == pytest.approx(0.40, abs=0.03)
    assert edge(flat) == pytest.approx(0.44, abs=0.03)
    assert corner(flat) == pytest.approx(0.48, abs=0.03)
    assert flat.mean() == pytest.approx(102 / 256, abs=1e-12)
    steep = coverage(Block(ratio=0.4), (16, 16), 2000, seed=0)
    assert centre(steep) > 0.68 and corner(steep) < 0.06


def test_block_reversed_of_half_is_even() -> None:
    p = coverage(BlockReversed(ratio=0.5), (16, 16), 5000, seed=1)
    assert p.mean() == 0.5
    assert [centre(p), edge(p), corner(p)] == pytest.approx([0.5, 0.5, 0.5], abs=0.02)
    assert np.abs(p - 0.5).max() < 5 * math.sqrt(0.25 / 5000)


def test_block_reversed_tosses_a_coin_for_each_image() -> None:
    """A mask of blocks hides the centre, its reverse shows it; each comes about half the time."""
    rng, hide = generator(2), BlockReversed(ratio=0.4)
    hidden = np.array([hide.draw(rng, (16, 16)).reshape(16, 16)[5:11, 5:11].mean() for _ in range(1000)])
    assert 0.35 < (hidden > 0.5).mean() < 0.5
    assert np.abs(np.diff(hidden > 0.5)).mean() > 0.35  # neighbours in the stream are not alike


def test_random_hides_every_cell_alike() -> None:
    p = coverage(Random(ratio=0.75), (14, 14), 5000, seed=0)
    assert p.mean() == pytest.approx(0.75)
    assert np.abs(p - 0.75).max() < 5 * math.sqrt(0.75 * 0.25 / 5000)


@pytest.mark.parametrize("hide", EVERY_HIDE)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_count_is_always_the_same(hide: Hide, grid: tuple[int, int]) -> None:
    rng, count = generator(3), hide.count(grid)
    assert 0 <= count < grid[0] * grid[1]
    for _ in range(30):
        mask = hide.draw(rng, grid)
        assert mask.dtype == np.bool_ and mask.shape == (grid[0] * grid[1],)
        assert mask.sum() == count


@pytest.mark.parametrize(
    ("hide", "cells", "count"),
    [
        (Random(ratio=0.75), 14, 147),
        (Random(ratio=0.4), 14, 196 - 117),
        (Random(ratio=0.6), 16, 256 - 102),
        (Random(ratio=0.7), 16, 256 - 76),
        (Random(ratio=0.0), 16, 0),
        (Block(cells=75, of=196), 14, 75),
        (Block(cells=75, of=196), 16, 98),
        (Block(cells=105, of=256), 16, 105),
        (Block(cells=105, of=256), 14, 80),
        (Block(cells=118, of=196), 14, 118),
        (Block(ratio=0.5), 14, 98),
        (BlockReversed(ratio=0.4), 14, 78),
        (BlockReversed(ratio=0.4), 16, 102),
        (BlockReversed(ratio=0.5), 16, 128),
        (BlockReversed(ratio=0.7), 16, 179),
        (BlockReversed(ratio=0.0), 16, 0),
    ],
)
def test_counts_are_rounded_as_published(hide: Hide, cells: int, count: int) -> None:
    assert hide.count((cells, cells)) == count


@pytest.mark.parametrize(("cells", "expected"), [(1, 1), (2, 1), (6, 3), (8, 5), (14, 16), (16, 16), (24, 16)])
def test_the_smallest_block_shrinks_with_the_grid(cells: int, expected: int) -> None:
    assert smallest_block(16, (cells, cells)) == expected


def test_topping_up_changes_few_cells() -> None:
    """SiameseIM's way costs at most one cell in a hundred on average."""
    rng = generator(4)
    short = [118 - int(block_wise(rng, (14, 14), 118).sum()) for _ in range(1000)]
    assert 0 < np.mean(short) < 0.01 * 118


@pytest.mark.parametrize("count", [0, 3, 10, 17, 20])
def test_fix_count_only_adds_or_only_removes(count: int) -> None:
    mask = np.arange(20) < 10
    fixed = fix_count(generator(5), mask, count)
    assert fixed.sum() == count and mask.sum() == 10
    assert (fixed >= mask).all() if count >= 10 else (fixed <= mask).all()


def test_fix_count_chooses_every_candidate_alike() -> None:
    rng, mask = generator(6), np.arange(20) < 10
    added = np.mean([fix_count(rng, mask, 12) for _ in range(4000)], axis=0)
    assert added[:10].min() == 1.0
    assert added[10:] == pytest.approx(np.full(10, 0.2), abs=0.03)


def test_the_same_generator_gives_the_same_mask() -> None:
    for hide in EVERY_HIDE:
        one, same, other = (hide.draw(generator(seed), (14, 14)) for seed in (8, 8, 9))
        assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("hide", [*EVERY_HIDE, Block(cells=78, of=196, min_block=15, aspect=0.5)])
def test_hiding_round_trips_through_yaml(hide: Hide) -> None:
    held = Hidden(hide=hide)
    assert from_plain(Hidden, yaml.safe_load(to_yaml(held))) == held


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"kind": "random", "ratio": 1.0}, "ratio"),
        ({"kind": "block"}, "either ratio"),
        ({"kind": "block", "ratio": 0.4, "cells": 75, "of": 196}, "either ratio"),
        ({"kind": "block", "cells": 75}, "either ratio"),
        ({"kind": "block", "cells": 196, "of": 196}, "nothing visible"),
        ({"kind": "block_reversed", "aspect": 0.0}, "aspect"),
        ({"kind": "block_reversed", "rato": 0.4}, "did you mean 'ratio'"),
    ],
)
def test_wrong_hiding_is_refused(plain: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        from_plain(Hidden, {"hide": plain})
