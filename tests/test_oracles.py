"""The oracles against each other and against R: a wrong yardstick would pass anything."""

import numpy as np
import oracles
import pandas as pd
import pytest
from references import designs, lme4_table, sample

THETAS = [[0.7, 0.0, 2.0], [0.0, 0.0, 0.0], [30.0, 0.01, 1.0]]


@pytest.fixture(scope="module")
def gene():
    expression, metadata, formula = sample("crossed")
    X, Zs, _ = oracles.design(formula, metadata)
    return expression.iloc[0].to_numpy(), X, Zs


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("theta", THETAS)
def test_dense_and_stable_agree(gene, theta, reml, weighted):
    y, X, Zs = gene
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    dense = oracles.dense_fit(y, X, Zs, theta, reml, weights)
    stable, score, hessian, _ = oracles.stable_derivatives(y, X, Zs, theta, reml, weights)
    for mine, other in zip(stable, dense, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-11)
    by_difference = oracles.dense_score(y, X, Zs, theta, reml, weights)
    np.testing.assert_allclose(score, by_difference, rtol=1e-6, atol=1e-6 * np.abs(score).max())
    second = oracles.dense_curvature(y, X, Zs, theta, reml, weights)
    scale = np.sqrt(np.abs(np.outer(np.diag(hessian), np.diag(hessian))))
    np.testing.assert_allclose(hessian / scale, second / scale, atol=1e-4)


def test_log_likelihood_is_the_multivariate_normals(gene):
    from scipy.stats import multivariate_normal

    y, X, Zs = gene
    theta, weights = [0.7, 0.2, 2.0], np.random.default_rng(0).uniform(0.5, 2, len(y))
    fit = oracles.dense_fit(y, X, Zs, theta, False, weights)
    V = np.diag(1 / weights)
    for t, Z in zip(theta, Zs, strict=True):
        V = V + t**2 * Z @ Z.T
    normal = multivariate_normal(X @ fit.beta, fit.sigma**2 * V)
    assert fit.log_likelihood == pytest.approx(normal.logpdf(y), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in designs() if name not in ("large", "influenza")])
def test_best_is_never_below_lme4(name):
    expression, metadata, formula = sample(name)
    for reml, table in lme4_table(name).groupby("reml"):
        oracle = oracles.Lmer(formula, metadata, bool(reml))
        for gene, row in table.head(3).iterrows():
            best = oracle.best(expression.loc[gene])
            assert best.violation < 1e-6
            assert best.log_likelihood > row["log_likelihood"] - 1e-8
            columns = [f"fraction.{part}" for part in oracle.names]
            np.testing.assert_allclose(
                best.fractions[: len(columns)], row[columns].astype(float), atol=3e-7
            )


def test_designs_are_lme4s():
    metadata = pd.DataFrame({"a": list("xxyy"), "b": list("uvuv"), "z": [1.0, 2, 3, 5]})
    X, Zs, names = oracles.design("~ z + (1|a/b)", metadata)
    assert names == ["a", "b:a"] and [Z.shape[1] for Z in Zs] == [2, 4]
    assert X.tolist() == [[1, 1], [1, 2], [1, 3], [1, 5]]
    assert oracles.split_formula("~ (1|a) + (1 | a:b)") == ("~ 1", ["a", "a:b"])
