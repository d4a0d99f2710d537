"""The table of starting points: its deviance is the deviance, and starts are near the optimum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.solver import Surface, Table, prepare, prepare_many, solve, table
from jaxvp.solver import valleys as grid
from jaxvp.statistics import compress, statistics

DESIGNS = [
    {"g": 12, "h": 5},
    {"g": 12, "h": 7, "i": 3},
    {"g": 12, "h": 4, "i": 3, "j": 3},
]

valleys = jax.jit(grid.valleys, static_argnums=2)


def prepared(levels, reml, genes=16):
    study = jaxvp.simulate(genes, 90, levels, imbalance=0.5, zero_probability=0.3, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    block = statistics(compression, study.expression.to_numpy().T)
    return study, compression.shared, block, table.build(compression.shared, reml)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("levels", DESIGNS, ids=["2 terms", "3 terms", "4 terms"])
def test_the_deviance_at_nodes_is_dense_algebra_s(levels, reml):
    study, shared, block, _ = prepared(levels, reml)
    nodes = tuple(np.array([0.0, 0.1, 2.0, 30.0])[: 5 - i] for i in range(len(levels)))
    found = table.tabulate(shared, nodes, reml)
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    size = shared.n - reml * shared.p
    with jax.enable_x64(True):
        rss = np.asarray(jax.jit(table.residual)(found.eliminated, block.gene))
    rng = np.random.default_rng(0)
    for gene in range(4):
        place = tuple(int(rng.integers(0, len(g))) for g in found.gammas)
        gamma = np.array([g[i] for g, i in zip(found.gammas, place, strict=True)])
        ours = found.eliminated.log_det[place] + found.main[place] + size * np.log(rss[place][gene])
        theta = np.empty(len(gamma))
        theta[list(shared.order)] = np.sqrt(gamma)
        y = study.expression.iloc[gene].to_numpy()
        dense = oracles.dense_deviance(y, X, Zs, theta, reml)
        ours += size * (1 + np.log(2 * np.pi / size) + 2 * np.log(block.scale[gene]))
        ours += 2 * reml * shared.log_det_r
        assert ours == pytest.approx(dense, rel=1e-9)


def test_starts_save_evaluations_and_change_no_optimum():
    _, shared, block, found = prepared(DESIGNS[1], False)
    with jax.enable_x64(True):
        run = jax.jit(solve, static_argnums=(0, 1, 2, 3))
        wanted, limit = np.ones(16, bool), np.int32(100)
        near = run("newton", 16, False, "cpu", shared, block.gene, wanted, limit, found)
        plain = run("newton", 16, False, "cpu", shared, block.gene, wanted, limit, None)
    np.testing.assert_allclose(
        near.estimates.log_likelihood, plain.estimates.log_likelihood, atol=1e-9
    )
    np.testing.assert_allclose(near.gamma, plain.gamma, rtol=1e-6, atol=1e-9)
    assert near.evaluations.mean() < 0.95 * plain.evaluations.mean()


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("levels", DESIGNS[:2], ids=["2 terms", "3 terms"])
def test_starts_in_float32_are_those_in_float64(levels, reml):
    _, shared, block, found = prepared(levels, reml, genes=64)
    assert found.single
    with jax.enable_x64(True):
        size = jnp.asarray(shared.n - reml * shared.p)
        starts = jax.jit(table.starts)
        single, double = (
            np.asarray(starts(dataclasses.replace(found, single=s), shared, block.gene, size))
            for s in (True, False)
        )
    assert np.isnan(double[1]).any() and np.isfinite(double[0]).all()
    np.testing.assert_allclose(single, double, atol=1e-3)


@pytest.mark.parametrize("p", [0, 1, 3, 11])
def test_squares_of_what_the_fixed_part_explains(p):
    rng = np.random.default_rng(p)
    half, b = rng.normal(size=(6, p, p)), rng.normal(size=(6, p, 4))
    with jax.enable_x64(True):
        found = table._squares(half, jnp.asarray(b))
    explained = np.einsum("brc,bcg->brg", half, b)
    np.testing.assert_allclose(found, (explained**2).sum(1))


def test_who_has_a_table():
    _, few, _, _ = prepared(DESIGNS[1], False)
    assert isinstance(prepare("newton", few, False), Table)
    # Of so many samples float32 would not tell deviances apart.
    assert not table.build(dataclasses.replace(few, n=np.array(1_001.0)), False).single
    assert prepare("optax", few, False) is None
    _, four, _, _ = prepared(DESIGNS[2], False)
    assert prepare("newton", four, False) is None
    study = jaxvp.simulate(1, 400, {"g": 100, "h": 80}, seed=1)
    many = compress(build(Formula.parse(study.formula), study.metadata))
    assert isinstance(prepare_many("newton", many, False, 8), Surface)
    assert isinstance(prepare_many("newton", many, False, 7), Table)
    assert prepare_many("optax", many, False, 8) is None


def test_starts_lie_about_the_lowest_node_and_not_below_zero():
    rng = np.random.default_rng(5)
    gammas, m = (np.array([0.0, 0.1, 1, 5, 30]), np.array([0.0, 0.5, 2, 50])), np.array([3.0, 7.0])
    height = rng.uniform(1, 2, size=(5, 4, 300))
    with jax.enable_x64(True):
        first, second = np.asarray(valleys(table.in_x(gammas, m), height, False))
    assert (first >= 0).all() and not (second < 0).any()
    for gene in range(300):
        place = np.unravel_index(height[..., gene].argmin(), (5, 4))
        for axis, (node, gamma) in enumerate(zip(place, gammas, strict=True)):
            x = np.log1p(m[axis] * gamma)
            low, high = x[max(node - 1, 0)], x[min(node + 1, len(x) - 1)]
            assert low <= first[axis, gene] <= high


def test_starts_are_where_the_polynomial_is_lowest():
    """Beside NumPy: of bowls of degree 2 exactly, of degree 4 nearer than a parabola's vertex."""
    rng = np.random.default_rng(1)
    x = np.append(0.0, np.sort(rng.uniform(0.2, 6, 9)))
    vertex = np.concatenate([[0.0, 0.05, 6.5], rng.uniform(0, 6, 57)])
    off = x[:, None] - vertex
    with jax.enable_x64(True):
        of_2, of_4 = (
            np.asarray(valleys((x,), height, False))[0, 0]
            for height in (off**2, off**2 + 0.2 * off**3 + 0.05 * off**4)
        )
    inside = np.clip(vertex, 0, x[-1])
    np.testing.assert_allclose(of_2, inside, atol=1e-9)
    parabolas = []
    for bowl in (off**2 + 0.2 * off**3 + 0.05 * off**4).T:
        node = np.clip(bowl.argmin(), 1, len(x) - 2)
        second, first, _ = np.polyfit(x[node - 1 : node + 2], bowl[node - 1 : node + 2], 2)
        parabolas.append(-first / (2 * second))
    errors = [np.abs(found - inside).mean() for found in (of_4, np.clip(parabolas, 0, x[-1]))]
    assert errors[0] < 0.1 * errors[1]


def test_of_two_nodes_that_are_equally_low_each_is_a_start():
    """Factors that can stand in for each other: no start lies between their valleys."""
    gammas, m = (np.array([0.0, 0.1, 1, 5, 30]),) * 2, np.array([3.0, 3.0])
    x = np.log1p(3.0 * gammas[0])
    height = np.full((5, 5, 1), 2.0)
    height[0, 3] = height[3, 0] = 1.0
    with jax.enable_x64(True):
        nodes = table.in_x(gammas, m)
        first, second = np.asarray(valleys(nodes, height, False))[..., 0]
    assert first[0] == 0 and x[2] < first[1] < x[4]
    assert second[1] == 0 and x[2] < second[0] < x[4]


@pytest.mark.parametrize("ridges", [False, True])
def test_two_equally_low_neighbours_are_one_valley(ridges):
    with jax.enable_x64(True):
        # Two parabolas, each of five nodes.
        height = np.array([3.0, 1, 1, 3, 7, 20, 20, 6, 3, 2, 3, 6])[:, None]
        first, second = np.asarray(valleys((np.arange(12.0),), height, ridges))[:, 0, 0]
    assert first == 1.5 and second == 9


@pytest.mark.parametrize("ridges", [False, True])
def test_a_narrow_valley_across_the_axes_is_one(ridges):
    x, y = np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij")
    narrow = 40 * (x - y) ** 2 + 0.1 * (x + y - 6.7) ** 2
    two = np.minimum((x - 1) ** 2 + (y - 2) ** 2, 1 + (x - 7) ** 2 + (y - 6) ** 2)
    with jax.enable_x64(True):
        height = np.stack([narrow, two], -1)
        first, second = np.asarray(valleys((np.arange(9.0),) * 2, height, ridges))
    assert np.isnan(second[:, 0]).all() == ridges
    np.testing.assert_allclose(first[:, 1], [1, 2])
    np.testing.assert_allclose(second[:, 1], [7, 6])
