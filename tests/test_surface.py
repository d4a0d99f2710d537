"""Large systems: tabulated determinants, one factor a gene, and polynomials, on small designs."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxvp
from jaxvp.batch.fitted import at_optimum
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood.own_part import own_part
from jaxvp.solver import determinant, polynomial, solve, surface
from jaxvp.statistics import compress, statistics

DESIGNS = {"2 terms": {"g": 12, "h": 5}, "3 terms": {"g": 12, "h": 7, "i": 3}}
GENES = 16


@pytest.fixture(scope="module", params=DESIGNS)
def design(request):
    """Unequal levels, half of the components zero."""
    study = jaxvp.simulate(
        GENES, 90, DESIGNS[request.param], imbalance=1.0, zero_probability=0.5, seed=2
    )
    compression = compress(build(Formula.parse(study.formula), study.metadata))
    block = statistics(compression, study.expression.to_numpy().T)
    return study, compression.shared, block


def dense(study, shared, gene, gamma, reml):
    """Deviance of one gene from n x n algebra; gamma in elimination order."""
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    theta = np.empty(len(gamma))
    theta[list(shared.order)] = np.sqrt(gamma)
    return oracles.dense_deviance(study.expression.iloc[gene].to_numpy(), X, Zs, theta, reml)


def points(shared, count=5):
    """Random x inside of the nodes, one of them with an exact zero."""
    top = np.log1p(polynomial.LARGEST_GAMMA * shared.samples_per_level)[:, None]
    x = top * np.random.default_rng(1).uniform(0, 0.8, (len(shared.levels), count))
    x[0, 0] = 0
    return x


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_deviance_of_determinant_and_own_part_is_dense_algebra_s(design, reml):
    study, shared, block = design
    x = points(shared)
    gamma = np.expm1(x) / shared.samples_per_level[:, None]
    gene = jax.tree.map(lambda a: a[..., : x.shape[1]], block.gene)
    with jax.enable_x64(True):
        tabulated = determinant.tabulate(shared, reml)
        log_det = np.asarray(jax.jit(lambda d, x: d(x))(tabulated, x)[0])
        rss = np.asarray(jax.jit(own_part)(gamma, shared, gene).rss)
    size = size_of(shared, reml)
    for i in range(x.shape[1]):
        ours = log_det[i] + size * np.log(rss[i])
        ours += size * (1 + np.log(2 * np.pi / size) + 2 * np.log(block.scale[i]))
        ours += 2 * reml * shared.log_det_r
        expected = dense(study, shared, i, gamma[:, i], reml)
        # Of each gene a point of its own: both parts are theirs.
        assert ours == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_derivatives_are_those_of_finite_differences(design, reml):
    _, shared, block = design
    x = points(shared, GENES)[:, 1:]
    gene = jax.tree.map(lambda a: a[..., 1:], block.gene)
    m = shared.samples_per_level[:, None]
    step = 1e-5
    with jax.enable_x64(True):
        tabulated = determinant.tabulate(shared, reml)
        of_determinant = jax.jit(lambda x: tabulated(x))
        curvature = jax.jit(lambda x: tabulated.axes.curvature(tabulated.values, x))
        own = jax.jit(lambda x: own_part(jnp.expm1(x) / m, shared, gene))
        _, score = of_determinant(x)
        hessian = curvature(x)[2]
        alone = jax.jit(lambda x: tabulated.main(x))
        first = own(x).first * np.exp(x) / m
        for i in range(len(x)):
            e = np.zeros_like(x)
            e[i] = step
            up, down = of_determinant(x + e), of_determinant(x - e)
            np.testing.assert_allclose(score[i], (up[0] - down[0]) / (2 * step), atol=1e-6)
            change = (curvature(x + e)[1] - curvature(x - e)[1]) / (2 * step)
            np.testing.assert_allclose(hessian[:, i], change, atol=1e-6)
            change = (alone(x + e)[1] - alone(x - e)[1]) / (2 * step)
            np.testing.assert_allclose(alone(x)[2][i], change[i], atol=1e-6)
            rss = (own(x + e).rss - own(x - e).rss) / (2 * step)
            np.testing.assert_allclose(first[i], rss, rtol=1e-6, atol=1e-9)


def test_the_optimum_is_dense_algebra_s(design):
    study, shared, block = design
    reml = len(shared.levels) == 3
    wanted = np.ones(GENES, bool)
    wanted[3] = False
    with jax.enable_x64(True):
        run = jax.jit(solve, static_argnums=(0, 1, 2))
        table = surface.build(shared, reml)
        found = run("newton", GENES, reml, shared, block.gene, wanted, np.int32(100), table)
        found = jax.tree.map(np.asarray, found)
    assert at_optimum(found)[wanted].mean() > 0.8  # others are beyond the nodes
    assert (found.evaluations[~wanted] == 0).all()
    here = np.flatnonzero(wanted & at_optimum(found))
    assert found.evaluations[here].mean() < 4
    X, Zs, _ = oracles.design(study.formula, study.metadata)
    for gene in here:
        theta = np.empty(len(shared.levels))
        theta[list(shared.order)] = np.sqrt(found.gamma[:, gene])
        y = study.expression.iloc[gene].to_numpy()
        best, fit, _ = oracles.polish(y, X, Zs, theta, reml)
        np.testing.assert_allclose(theta, best, atol=1e-5)
        ours = found.estimates.log_likelihood[gene] - size_of(shared, reml) * np.log(
            block.scale[gene]
        )
        assert ours == pytest.approx(fit.log_likelihood, abs=1e-7)
        sigma = found.estimates.sigma[gene] * block.scale[gene]
        assert sigma == pytest.approx(fit.sigma, rel=1e-6)


def size_of(shared, reml):
    return shared.n - reml * shared.p


def test_a_surface_whose_determinants_are_not_exact_is_not_used(design, monkeypatch):
    _, shared, _ = design
    monkeypatch.setattr(determinant, "_ERROR", 1e-2)
    assert determinant.tabulate(shared, False).error > determinant.PRECISE
    assert surface.build(shared, False) is None


def test_a_polynomial_and_its_derivatives_are_exact():
    """Degrees below the number of nodes: interpolation is exact."""
    count = (4, 5)
    a, b = (polynomial._points(n) for n in count)
    values = np.outer(a**3 - a, 1 + b**4)[..., None]
    z = np.array([[0.3], [0.8]])
    with jax.enable_x64(True):
        many = polynomial.derivatives(jnp.asarray(values), z, 2)
        one = polynomial.derivatives(jnp.asarray(values), np.tile(z, 3), 2)
    a, b = z[:, 0]
    p, q = a**3 - a, 1 + b**4
    for value, gradient, hessian in (many, one):
        np.testing.assert_allclose(value, p * q, rtol=1e-12)
        np.testing.assert_allclose(gradient[:, 0], [(3 * a**2 - 1) * q, p * 4 * b**3], rtol=1e-9)
        mixed = (3 * a**2 - 1) * 4 * b**3
        np.testing.assert_allclose(
            hessian[..., 0], [[6 * a * q, mixed], [mixed, p * 12 * b**2]], rtol=1e-9
        )


def test_a_gene_beyond_the_nodes_is_solved_by_the_plain_way():
    study = jaxvp.simulate(
        2,
        400,
        {"g": 80, "h": 70},
        fractions={"g": 0.995, "h": 0.001, "Age": 0.0},
        seed=4,
    )
    result = jaxvp.fit(study.expression, study.formula, study.metadata)
    assert (result.diagnostics["status"] == "converged").all()
    assert (result.theta["g"] ** 2 > polynomial.LARGEST_GAMMA).any()
    for gene in study.expression.index:
        y = study.expression.loc[gene].to_numpy()
        X, Zs, names = oracles.design(study.formula, study.metadata)
        found = oracles.polish(y, X, Zs, result.theta.loc[gene, names].to_numpy(), False)
        assert result.log_likelihood[gene] >= found[1].log_likelihood - 1e-8
