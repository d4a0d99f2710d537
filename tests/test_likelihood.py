"""The deviance of one gene against n x n algebra, its derivatives against JAX's and finite ones.

Both eliminations (sweep and Cholesky factor) are held to the same numbers, and the statistics they
start from to what they are defined as.
"""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pandas as pd
import pytest

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import evaluate
from jaxvp.likelihood.columns import sweep_columns
from jaxvp.statistics import compress, passes, products, statistics

GENES = 5
# Random terms of different sizes in an order that elimination changes; one term; no fixed part.
FORMULAS = [
    "~ Age + Dose + (1|Small) + (1|Large) + (1|Middle)",
    "~ Age + (1|Large)",
    "~ 0 + (1|Small) + (1|Large)",
]


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(4)
    n = 60
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 9, n),
            "Dose": rng.uniform(size=n),
            **{
                name: [
                    f"{name}{i}"
                    for i in np.r_[np.arange(levels), rng.integers(0, levels, n - levels)]
                ]
                for name, levels in (("Small", 4), ("Large", 17), ("Middle", 6))
            },
        }
    )
    return metadata, rng.normal(size=(n, GENES)) * 3 + 7


def prepared(formula, study):
    metadata, y = study
    compression = compress(build(Formula.parse(formula), metadata))
    return compression, statistics(compression, y)


def one_gene(block, j):
    return jax.tree.map(lambda leaf: leaf[..., j], block.gene)


@contextmanager
def eliminated_by(name, monkeypatch):
    """Both ways on the same system: the threshold between them is moved."""
    monkeypatch.setattr("jaxvp.likelihood.SWEEP_COLUMNS", 64 if name == "sweep" else -1)
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("way", ["sweep", "factor"])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_dense_algebra(study, monkeypatch, formula, reml, way):
    metadata, y = study
    X, Zs = oracles.design(formula, metadata)[:2]
    compression, block = prepared(formula, study)
    rng = np.random.default_rng(0)
    with eliminated_by(way, monkeypatch):
        shared = jax.device_put(compression.shared)
        found_at = jax.jit(lambda g, gene: evaluate(g, shared, gene, reml=reml))
        for j in range(GENES):
            theta = rng.gamma(1, 1.0, size=len(Zs)) * (rng.random(len(Zs)) < 0.8)
            gamma = theta[list(shared.order)] ** 2
            gene = one_gene(block, j)
            evaluation = found_at(tuple(gamma), gene)
            estimates = evaluation.estimates
            dense = oracles.dense_fit(y[:, j], X, Zs, theta, reml)
            scale, size = block.scale[j], shared.n - reml * shared.p
            log_likelihood = float(estimates.log_likelihood) - size * np.log(scale)
            assert log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-10)
            assert float(estimates.sigma) * scale == pytest.approx(dense.sigma, rel=1e-10)
            beta = shared.r_inverse @ (block.ols[:, j] + scale * np.asarray(estimates.coefficients))
            np.testing.assert_allclose(beta, dense.beta, rtol=1e-8, atol=1e-10)
            errors = np.sqrt(np.asarray(estimates.variances)) * float(estimates.sigma) * scale
            np.testing.assert_allclose(errors, dense.standard_errors, rtol=1e-9)
            score = oracles.dense_score(y[:, j], X, Zs, theta, reml)[list(shared.order)]
            ours = np.array(evaluation.score, dtype=float)
            np.testing.assert_allclose(ours, score, rtol=1e-5, atol=1e-5)
        order = list(shared.order)
        theta = rng.uniform(0.4, 1.5, size=len(Zs))
        hessian = found_at(tuple(theta[order] ** 2), one_gene(block, 0)).hessian
        dense = oracles.dense_curvature(y[:, 0], X, Zs, theta, reml)[np.ix_(order, order)]
        np.testing.assert_allclose(
            np.array(hessian, dtype=float), dense, rtol=1e-3, atol=1e-3 * abs(dense).max()
        )


def each_once():
    """JAX's derivatives of several terms compile for long: quick tests take one criterion."""
    for place, formula in enumerate(FORMULAS):
        for reml in (False, True):
            marks = [pytest.mark.slow] if reml == (place == 2) else []
            yield pytest.param(formula, reml, marks=marks)


@pytest.mark.parametrize(("formula", "reml"), list(each_once()))
def test_derivatives_are_jax_s(study, monkeypatch, formula, reml):
    compression, block = prepared(formula, study)
    gene = one_gene(block, 0)
    with eliminated_by("sweep", monkeypatch):
        shared = jax.device_put(compression.shared)

        def deviance(gamma):
            return evaluate(tuple(gamma), shared, gene, reml=reml).deviance

        ours = jax.jit(lambda gamma: evaluate(tuple(gamma), shared, gene, reml=reml))
        theirs = jax.jit(lambda g: (jax.grad(deviance)(g), jax.jacfwd(jax.grad(deviance))(g)))
        for gamma in (np.ones(len(shared.levels)), np.linspace(0, 0.6, len(shared.levels))):
            found = ours(jnp.asarray(gamma))
            gradient, hessian = theirs(jnp.asarray(gamma))
            np.testing.assert_allclose(np.array(found.score), gradient, atol=1e-9)
            np.testing.assert_allclose(np.array(found.hessian), hessian, atol=1e-8)
            # Expected information: the mean of the Hessian over data is positive semidefinite.
            assert np.linalg.eigvalsh(np.array(found.fisher, dtype=float)).min() > -1e-9


def test_genes_on_a_trailing_axis_are_the_same_genes(study, monkeypatch):
    compression, block = prepared(FORMULAS[0], study)
    gamma = np.random.default_rng(1).gamma(1, 1, size=(3, GENES))
    with eliminated_by("sweep", monkeypatch):
        shared = jax.device_put(compression.shared)
        at = jax.jit(lambda gamma, gene: evaluate(tuple(gamma), shared, gene, reml=True))
        together = at(jnp.asarray(gamma), block.gene)
        for j in range(GENES):
            alone = at(jnp.asarray(gamma[:, j]), one_gene(block, j))
            for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a[..., j], b, rtol=1e-11, atol=1e-12)


def test_statistics_are_the_products_they_are_defined_as(study):
    metadata, y = study
    compression, block = prepared(FORMULAS[0], study)
    shared, gene = compression.shared, block.gene
    X, Zs = oracles.design(FORMULAS[0], metadata)[:2]
    first, *others = [Zs[i] for i in shared.order]
    residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(block.scale, np.sqrt((residual**2).mean(axis=0)), rtol=1e-12)
    scaled = residual / block.scale
    U = np.concatenate([*others, X @ shared.r_inverse], axis=1)
    size = first.sum(axis=0)
    for gamma in (0.0, 0.3, 7.0, 1e6):
        weights = 1 / (1 + gamma * shared.sizes)
        inverse = np.linalg.inv(np.eye(len(y)) + gamma * first @ first.T)
        uu = shared.within + np.tensordot(weights, shared.between, 1)
        np.testing.assert_allclose(uu, U.T @ inverse @ U, atol=1e-9)
        uy = gene.within_uy + np.tensordot(weights, gene.between_uy, 1)
        np.testing.assert_allclose(uy, U.T @ inverse @ scaled, atol=1e-9)
        yy = gene.within_yy + weights @ gene.between_yy
        np.testing.assert_allclose(yy, (scaled * (inverse @ scaled)).sum(axis=0), rtol=1e-9)
    assert (shared.level_counts * shared.level_sizes).sum() == size.sum()


@pytest.mark.parametrize("formula", [*FORMULAS, "~ Age + Dose"])
@pytest.mark.parametrize("weighted", [False, True])
def test_samples_that_are_taken_some_at_a_time_are_the_same_samples(
    study, formula, weighted, monkeypatch
):
    """60 samples in tiles of one gene, 7 at a time."""
    metadata, y = study
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    if weighted:
        weights[::9] = 0
        y = y[weights > 0]
    compression = compress(build(Formula.parse(formula), metadata), weights)
    whole = statistics(compression, y)
    monkeypatch.setattr(products, "_TILE_BYTES", 7 * 8)
    monkeypatch.setattr(products, "_TILE_GENES", (1, 1))
    monkeypatch.setattr(passes, "_SAMPLES_PER_SUM", 0)
    some = passes.in_parts(compression, len(y), 7)
    assert [len(rows.q) for rows in some] == [7] * (len(y) // 7) + [len(y) % 7]
    found = statistics(compression, y)
    monkeypatch.setattr(passes, "_SAMPLES_PER_SUM", 4)
    if compression.grouping is not None:  # parts of 7 would be added up for 17 levels and more
        assert len(passes.in_parts(compression, len(y), 7)[0].q) == len(y)
    if compression.grouping is None:  # nothing is written there
        found, whole = found._replace(gene=None), whole._replace(gene=None)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# Compiled once for all designs of one shape.
_evaluated = jax.jit(
    lambda gamma, shared, gene, reml: evaluate(gamma, shared, gene, reml=reml), static_argnums=3
)


@pytest.mark.parametrize(
    ("deviations", "gamma"),
    [
        ((1e3, 1e3, 0.0), (1e5, 1e6, 0.1)),
        ((1e4, 1e4, 0.0), (1e7, 1e8, 0.1)),
        # Levels of few that explain nearly all, beside terms that explain little.
        ((0.5, 0.5, 1e5), (0.2, 0.2, 1e10)),
        ((0.5, 0.0, 1e5), (0.2, 0.0, 1e10)),
    ],
)
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_large_terms_cost_no_digits(reml, deviations, gamma):
    """Beside dense algebra in long double: what is left of 1 - gamma Z'PZ is not a difference.

    Steps would be a thousandth of what they are with a Hessian that has lost it.
    """
    rng = np.random.default_rng(6)
    n, levels = 240, {"g": 90, "h": 70, "i": 5}
    codes = [np.r_[np.arange(k), rng.integers(0, k, n - k)] for k in levels.values()]
    factors = pd.DataFrame(dict(zip(levels, codes, strict=True)), dtype="category")
    metadata = factors.assign(Age=rng.normal(50, 9, n))
    y = rng.normal(size=n)
    for k, c, deviation in zip(levels.values(), codes, deviations, strict=True):
        y += deviation * rng.normal(size=k)[c]
    compression = compress(build(Formula.parse("~ Age + (1|g) + (1|h) + (1|i)"), metadata))
    shared = compression.shared
    assert shared.n_columns > 64
    block = statistics(compression, y[:, None])
    with jax.enable_x64(True):
        found = _evaluated(tuple(gamma), shared, one_gene(block, 0), reml)
        found = jax.tree.map(np.asarray, found)
    X = np.column_stack([np.ones(n), metadata["Age"]]).astype(np.longdouble)
    Zs = [np.eye(c.max() + 1, dtype=np.longdouble)[c] for c in codes]
    V = np.eye(n, dtype=np.longdouble) + sum(g * (Z @ Z.T) for g, Z in zip(gamma, Zs, strict=True))
    inverse = gauss_jordan(V)
    half = inverse @ X
    P = inverse - half @ gauss_jordan(X.T @ half) @ half.T
    size = n - 2 if reml else n
    projected, of_determinant = P @ y, P if reml else inverse
    rss = y @ projected
    slopes = [-((Z.T @ projected) ** 2).sum() / rss for Z in Zs]
    jacobian = [g + Z.shape[1] / n for g, Z in zip(gamma, Zs, strict=True)]
    for i, Z in enumerate(Zs):
        score = np.trace(Z.T @ of_determinant @ Z) + size * slopes[i]
        assert abs(found.score[i] - score) < found.rounding[i]
        for j, other in enumerate(Zs):
            bent = 2 * (projected @ Z) @ (Z.T @ P @ other) @ (other.T @ projected) / rss
            hessian = size * (bent - slopes[i] * slopes[j])
            hessian -= ((Z.T @ of_determinant @ other) ** 2).sum()
            # In x, of 1 to 200.
            assert abs(found.hessian[i, j] - hessian) * jacobian[i] * jacobian[j] < 1e-3


def gauss_jordan(matrix):
    a = np.array(matrix, np.longdouble)
    inverse = np.eye(len(a), dtype=np.longdouble)
    for i in range(len(a)):
        pivot = a[i, i]
        a[i], inverse[i] = a[i] / pivot, inverse[i] / pivot
        column = a[:, i].copy()
        column[i] = 0
        a, inverse = a - np.outer(column, a[i]), inverse - np.outer(column, inverse[i])
    return inverse


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_logarithm_of_large_pivots(dtype):
    """Twelve columns whose pivots have a product that float32 cannot hold."""
    columns, square, gamma = 12, 200.0, 1e4
    with jax.enable_x64(dtype == np.float64):
        m = jnp.asarray(np.diag(np.full(columns + 1, square)).astype(dtype))[:, :, None]
        log_det = sweep_columns(jnp.full((columns, 1), gamma, dtype), m)[1]
    np.testing.assert_allclose(log_det, columns * np.log1p(square * gamma), rtol=1e-6)
