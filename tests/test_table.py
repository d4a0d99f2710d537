"""The table of starting points: its deviance is the deviance, and starts are near the optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.solver import prepare, solve, table
from jaxvp.statistics import compress, statistics

DESIGNS = [
    {"g": 12, "h": 5},
    {"g": 12, "h": 7, "i": 3},
    {"g": 12, "h": 4, "i": 3, "j": 3},
]


def prepared(levels, reml, genes=16):
    study = jaxvp.simulate(genes, 90, levels, imbalance=0.5, zero_probability=0.3, seed=2)
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    block = statistics(compression, study.expression.to_numpy().T)
    return study, compression.shared, block, table.build(compression.shared, reml)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("levels", DESIGNS, ids=["2 terms", "3 terms", "4 terms"])
def test_the_deviance_at_nodes_is_dense_algebra_s(levels, reml):
    study, shared, block, found = prepared(levels, reml)
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    size = shared.n - reml * shared.p
    with jax.enable_x64(True):
        rss = np.asarray(jax.jit(table.residual)(found, block.gene))
    rng = np.random.default_rng(0)
    for gene in range(4):
        place = tuple(int(rng.integers(0, len(u) - 1)) for u in found.nodes)
        gamma = np.array(
            [
                u[i] / (m * (1 - u[i]))
                for u, i, m in zip(found.nodes, place, shared.samples_per_level, strict=True)
            ]
        )
        main = sum(np.log1p(g * n).sum() for g, n in zip(gamma, found.main, strict=True))
        ours = found.log_det[place] + main + size * np.log(rss[place][gene])
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
        run = jax.jit(solve, static_argnums=(0, 1, 2))
        wanted, limit = np.ones(16, bool), np.int32(100)
        near = run("newton", 16, False, shared, block.gene, wanted, limit, found)
        plain = run("newton", 16, False, shared, block.gene, wanted, limit, None)
    np.testing.assert_allclose(
        near.estimates.log_likelihood, plain.estimates.log_likelihood, atol=1e-9
    )
    np.testing.assert_allclose(near.gamma, plain.gamma, rtol=1e-6, atol=1e-9)
    assert near.evaluations.mean() < 0.75 * plain.evaluations.mean()


def test_only_large_systems_and_newton_have_a_table():
    _, shared, _, _ = prepared(DESIGNS[1], False)
    assert prepare("newton", shared, False) is None
    study = jaxvp.simulate(1, 400, {"g": 100, "h": 80}, seed=1)
    large = compress(build(Formula.parse(study.formula), study.metadata)).shared
    assert prepare("newton", large, False) is not None
    assert prepare("optax", large, False) is None


def test_a_polynomial_and_its_derivatives_are_exact():
    """Degrees below the number of nodes: Chebyshev interpolation is exact."""
    count = (4, 5)
    nodes = [table._chebyshev(n) for n in count]
    values = np.outer(nodes[0] ** 3 - nodes[0], 1 + nodes[1] ** 4)[..., None]
    u = np.array([[0.3], [0.8]])
    with jax.enable_x64(True):
        coefficients = jnp.asarray(values)
        for axis, node in enumerate(nodes):
            matrix = np.linalg.inv(table._polynomials(node))
            coefficients = jnp.moveaxis(jnp.tensordot(matrix, coefficients, (1, axis)), 0, axis)
        basis = [table._basis(jnp.asarray(u[i]), n) for i, n in enumerate(count)]
        value, gradient, hessian = table._derivatives(coefficients, basis)
    a, b = u[0, 0], u[1, 0]
    p, q = a**3 - a, 1 + b**4
    assert float(value[0]) == pytest.approx(p * q)
    np.testing.assert_allclose(gradient[:, 0], [(3 * a**2 - 1) * q, p * 4 * b**3], rtol=1e-9)
    mixed = (3 * a**2 - 1) * 4 * b**3
    np.testing.assert_allclose(
        hessian[..., 0], [[6 * a * q, mixed], [mixed, p * 12 * b**2]], rtol=1e-9
    )
