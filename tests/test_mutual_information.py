"""The two equations of M3I (arXiv:2211.09807) on discrete joint distributions, exactly.

A world is p(t_y) p(t_x | t_y) p(s | t_y), views x(s, t_x) and y(s, t_y), and channels z_x | x and z_y | y.
"""

from __future__ import annotations

import numpy as np
import pytest

Array = np.ndarray
S, TX, TY, X, Y, ZX, ZY = 5, 3, 2, 4, 4, 3, 4


def conditional(rng: np.random.Generator, *shape: int, sharp: bool = False) -> Array:
    """Random p(last | others); `sharp` puts all of it on one value."""
    weights = rng.random(shape) + 0.05
    if sharp:
        return np.eye(shape[-1])[weights.argmax(-1)]
    return weights / weights.sum(-1, keepdims=True)


def log(p: Array) -> Array:
    """Logarithm with log 0 = 0: wherever p is 0, a factor of 0 stands beside it."""
    return np.log(np.where(p > 0, p, 1.0))


def entropy(p: Array) -> Array:
    """Of the last axis, in nats."""
    return -(p * log(p)).sum(-1)


class World:
    """All distributions of eq. 1 by name; axes in the order s, a (t_x), b (t_y), x (z_x), z (z_y)."""

    def __init__(self, seed: int, sharp: bool, targets: int = 1, tied: bool = False) -> None:
        rng = np.random.default_rng(seed)
        p_b = conditional(rng, TY)
        p_ab = conditional(rng, TY, TX) * p_b[:, None]
        p_s = conditional(rng, TY, TX, S) if tied else conditional(rng, TY, 1, S)
        self.view = np.einsum("ba,bas->sab", p_ab, np.broadcast_to(p_s, (TY, TX, S)))
        x_of, y_of = rng.integers(X, size=(S, TX)), rng.integers(Y, size=(targets, S, TY))
        self.zx = conditional(rng, X, ZX, sharp=sharp)[x_of]  # (s, a, x)
        self.zy = [conditional(rng, Y, ZY, sharp=sharp)[cells] for cells in y_of]  # (s, b, z) each

    def answer(self) -> Array:
        """p(z_1 .. z_K | y_1 .. y_K), the targets encoded apart: axes (s, b, z), z running over K-tuples."""
        joint = self.zy[0]
        for other in self.zy[1:]:
            joint = np.einsum("sbz,sbw->sbzw", joint, other).reshape(S, TY, -1)
        return joint

    def joint(self) -> Array:
        """p(a, b, x, z): the samples summed out."""
        return np.einsum("sab,sax,sbz->abxz", self.view, self.zx, self.answer())


def information(joint: Array) -> float:
    """I(z_x; z_y | t_x, t_y) from its definition, E log p(x, z | t) / p(x | t) p(z | t)."""
    views = joint.sum((2, 3), keepdims=True)
    apart = log(joint.sum(3, keepdims=True)) + log(joint.sum(2, keepdims=True))
    return float((joint * (log(joint) + log(views) - apart)).sum())


def spread(world: World) -> float:
    """E over t_y of H(p(z_y | t_y)): the regulariser of eq. 1."""
    joint = world.joint().sum((0, 2))
    p_b = joint.sum(1)
    return float((p_b * entropy(joint / p_b[:, None])).sum())


def prediction(world: World, guess: Array) -> float:
    """E over s, t, z_x of -H(p(z_y | y), guess(z_y | z_x, t)): prediction; `guess` has axes a b x z."""
    return float(np.einsum("sab,sax,sbz,abxz->", world.view, world.zx, world.answer(), log(guess)))


def exact(joint: Array) -> Array:
    """p(z_y | z_x, t), uniform where z_x never happens."""
    total = joint.sum(3, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), 1 / joint.shape[3])


@pytest.mark.parametrize("sharp", [False, True], ids=["random channels", "deterministic encoders"])
@pytest.mark.parametrize("seed", range(3))
def test_equation_1_is_an_identity(seed: int, sharp: bool) -> None:
    world = World(seed, sharp)
    joint = world.joint()
    assert joint.sum() == pytest.approx(1, abs=1e-12)
    assert spread(world) + prediction(world, exact(joint)) == pytest.approx(information(joint), abs=1e-12)


def test_equation_1_needs_the_sample_to_be_independent_of_the_input_view() -> None:
    """With s tied to t_x, p(z_y | t_y) is not p(z_y | t_x, t_y): eq. 1 is off by I(z_y; t_x | t_y) > 0."""
    world = World(0, sharp=False, tied=True)
    joint = world.joint()
    views = joint.sum(2)
    given_both = float((views.sum(2) * entropy(views / views.sum(2, keepdims=True))).sum())
    excess = spread(world) - given_both
    assert excess > 1e-4
    off = spread(world) + prediction(world, exact(joint)) - information(joint)
    assert off == pytest.approx(excess, abs=1e-12)


def test_any_likelihood_gives_a_lower_bound_whose_gap_is_a_divergence() -> None:
    world = World(1, sharp=False)
    joint, rng = world.joint(), np.random.default_rng(9)
    guess = conditional(rng, TX, TY, ZX, ZY)
    gap = information(joint) - spread(world) - prediction(world, guess)
    divergence = float((joint * (log(exact(joint)) - log(guess))).sum())
    assert divergence > 1e-3
    assert gap == pytest.approx(divergence, abs=1e-12)


@pytest.mark.parametrize("sharp", [False, True], ids=["random channels", "deterministic encoders"])
@pytest.mark.parametrize("targets", [2, 3])
def test_the_gap_of_equation_4_is_the_total_correlation_of_the_targets(targets: int, sharp: bool) -> None:
    """Eq. 4 predicts K targets apart. Its bound is looser than that of the exact joint conditional by

        I - (H + sum_k E log p(z_k | z_x, t)) = E [log p(z_1 .. z_K | z_x, t) - sum_k log p(z_k | z_x, t)]
                                              = E [sum_k H(z_k | z_x, t) - H(z_1 .. z_K | z_x, t)],

    the total correlation TC(z_1 .. z_K | z_x, t) >= 0, when every P_hat_k is its own exact conditional (the
    first line uses eq. 1 for the tuple z_1 .. z_K; the second takes the expectation over z given z_x and t).
    Targets that repeat one another, given the input, loosen the bound.
    """
    world = World(4, sharp, targets=targets)
    joint = world.joint()
    parts = joint.reshape(*joint.shape[:3], *[ZY] * targets)
    marginals = [parts.sum(tuple(3 + j for j in range(targets) if j != k)) for k in range(targets)]

    terms = 0.0
    for k, marginal in enumerate(marginals):
        terms += np.einsum("sab,sax,sbz,abxz->", world.view, world.zx, world.zy[k], log(exact(marginal)))
    gap = information(joint) - (spread(world) + float(terms))

    given = joint.sum(3)
    apart = sum(float((given * entropy(exact(marginal))).sum()) for marginal in marginals)
    correlation = apart - float((given * entropy(exact(joint))).sum())
    assert correlation > 1e-4
    assert gap == pytest.approx(correlation, abs=1e-12)


def test_two_copies_of_one_target_cost_its_whole_entropy() -> None:
    """With deterministic encoders and z_2 = z_1, TC is H(z_1 | z_x, t): predicted twice, it counts twice."""
    world = World(5, sharp=True)
    world.zy = [world.zy[0], world.zy[0]]
    joint = world.joint()
    once = joint.reshape(TX, TY, ZX, ZY, ZY).sum(4)
    left = float((once.sum(3) * entropy(exact(once))).sum())
    terms = 2 * np.einsum("sab,sax,sbz,abxz->", world.view, world.zx, world.zy[0], log(exact(once)))
    assert left > 1e-3
    assert information(joint) - spread(world) - float(terms) == pytest.approx(left, abs=1e-12)
