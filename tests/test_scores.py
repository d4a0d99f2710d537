"""Collinearity score and effective sample size of genes, against lme4 and n x n algebra."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

import jaxvp
from jaxvp import DataError, DesignError
from jaxvp.collinearity import collinearity_score, effective_sample_size
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.simulation import simulate

FORMULAS = [
    "~ Age + Sex + (1|Individual)",
    "~ Age * Sex + (1|Individual) + (1|Tissue) + (1|Batch)",
    "~ 0 + Sex + Age + (1|Batch) + (1|Individual)",
    "~ year + Age + (1|Tissue) + (1|Tissue:Batch) + (1|many)",
    "~ Age + I(Age + 1e-4 * year) + (1|Site/Individual)",
]


def metadata(n=90, seed=1):
    rng = np.random.default_rng(seed)
    individual = rng.integers(0, 15, n)
    return pd.DataFrame(
        {
            "Age": rng.normal(50, 9, 15)[individual] + rng.normal(0, 0.5, n),
            "year": rng.integers(2001, 2009, n),
            "Sex": np.where(rng.random(n) < 0.4, "f", "m"),
            "Individual": [f"i{k}" for k in individual],
            "Site": individual % 4,
            "Tissue": rng.choice(list("abc"), n),
            "Batch": rng.choice([1, 2, 3, 4], n, p=[0.6, 0.2, 0.1, 0.1]),
            # thirty different level sizes would need more samples: these have eleven
            "many": np.repeat(np.arange(12), np.arange(12) + 2)[:n],
        },
        index=[f"s{k}" for k in range(n)],
    )


def design(formula, table=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build(Formula.parse(formula), metadata() if table is None else table)


def indicators(design):
    return [np.eye(codes.max() + 1)[codes] for codes in design.codes]


def dense_score(design, theta, skip=0):
    """By QR of [[Z Lambda, X], [I, 0]]: with R its last block, X'V^-1 X = R'R."""
    X = design.X / np.linalg.norm(design.X, axis=0)
    Z = np.column_stack(
        [np.zeros((design.n, 0))] + [t * z for t, z in zip(theta, indicators(design), strict=True)]
    )
    q = Z.shape[1]
    top, bottom = np.column_stack([Z, X]), np.column_stack([np.eye(q), np.zeros((q, design.p))])
    R = np.linalg.qr(np.vstack([top, bottom]), mode="r")[q:, q:]
    root = np.linalg.inv(R)[skip:]
    root = root / np.linalg.norm(root, axis=1, keepdims=True)
    correlation = np.abs(root @ root.T)
    return correlation[np.triu_indices(len(root), 1)].max() if len(root) > 1 else 0.0


def thetas(design, genes=12, seed=0):
    """Of every size, zeros and equal rows among them."""
    rng = np.random.default_rng(seed)
    theta = 10 ** rng.uniform(-4, 2, (genes, len(design.codes)))
    theta[rng.random(theta.shape) < 0.3] = 0
    theta[0], theta[1] = 0, theta[2]
    return theta


# Against dense algebra


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("intercept", [True, False])
def test_score_is_the_dense_one(formula, intercept):
    its = design(formula)
    theta = thetas(its)
    skip = 1 if its.formula.intercept and not intercept else 0
    expected = [dense_score(its, row, skip) for row in theta]
    found = collinearity_score(its, theta, intercept)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    assert found[1] == found[2]


def test_score_by_inverting_v():
    """The textbook's own words, where n x n algebra has the digits for it."""
    its = design(FORMULAS[1])
    theta = np.random.default_rng(3).uniform(0, 2, (5, 3))
    for row, score in zip(theta, collinearity_score(its, theta), strict=True):
        V = np.eye(its.n) + sum(t**2 * z @ z.T for t, z in zip(row, indicators(its), strict=True))
        covariance = np.linalg.inv(its.X.T @ np.linalg.solve(V, its.X))
        deviation = np.sqrt(np.diag(covariance))
        correlation = np.abs(covariance / np.outer(deviation, deviation))
        assert score == pytest.approx(np.tril(correlation, -1).max(), abs=1e-8)


def test_score_with_interpolated_level_sizes():
    """Forty class sizes are compressed to fewer nodes."""
    sizes = np.arange(1, 41)
    n = sizes.sum()
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "g": np.repeat(np.arange(40), sizes).astype(str),
            "h": rng.integers(0, 6, n).astype(str),
            "x": rng.normal(size=n) + np.repeat(rng.normal(size=40), sizes),
            "z": rng.normal(3, 1, size=n),
        }
    )
    its = design("~ x + z + (1|g) + (1|h)", table)
    theta = thetas(its, 4)
    expected = [dense_score(its, row) for row in theta]
    np.testing.assert_allclose(collinearity_score(its, theta), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("formula", FORMULAS)
def test_score_beside_almost_no_residual(formula):
    """Shares of the residual down to 1e-14, and less than a fit would ever report."""
    its = design(formula)
    theta = 1e5 * thetas(its)
    expected = [dense_score(its, row) for row in theta]
    np.testing.assert_allclose(collinearity_score(its, theta), expected, rtol=0, atol=1e-8)
    assert np.isfinite(collinearity_score(its, 1e12 * theta)).all()


def test_blocks_make_no_difference(monkeypatch):
    its = design(FORMULAS[1])
    theta = thetas(its, 40)
    whole = collinearity_score(its, theta)
    monkeypatch.setattr("jaxvp.collinearity.scores._BLOCK_BYTES", 1)
    np.testing.assert_allclose(collinearity_score(its, theta), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("formula", ["~ 0 + (1|Tissue)", "~ (1|Tissue)", "~ 1"])
def test_fewer_than_two_effects_score_zero(formula):
    its = design(formula)
    np.testing.assert_array_equal(collinearity_score(its, np.ones((3, len(its.codes)))), 0)


def test_one_effect_beside_the_intercept():
    its = design("~ Age + (1|Tissue)")
    theta = np.array([[0.5]])
    assert collinearity_score(its, theta)[0] > 0.9
    assert collinearity_score(its, theta, intercept=False)[0] == 0


def test_no_genes():
    its = design(FORMULAS[0])
    assert collinearity_score(its, np.zeros((0, 1))).shape == (0,)


@pytest.mark.parametrize("rho", [0.0, 1e-9, 0.3, 0.999, 1.0])
def test_full_effective_sample_size_is_the_dense_one(rho):
    its = design(FORMULAS[3])
    found = effective_sample_size(its, np.full((1, 3), rho))[0]
    for size, z in zip(found, indicators(its), strict=True):
        C = rho * z @ z.T
        np.fill_diagonal(C, 1)
        assert size == pytest.approx(np.linalg.pinv(C, hermitian=True).sum(), rel=1e-8)


def test_effective_sample_size_between_groups_and_samples():
    its = design(FORMULAS[1])
    for method in ("full", "approximate"):
        sizes = effective_sample_size(its, np.array([[0.0] * 3, [1.0] * 3]), method)
        np.testing.assert_allclose(sizes[0], its.n, rtol=1e-14)
        np.testing.assert_allclose(sizes[1], [len(levels) for levels in its.levels], rtol=1e-14)


def test_methods_agree_in_a_balanced_design():
    table = pd.DataFrame({"g": list("abcde") * 6})
    its = design("~ (1|g)", table)
    rho = np.linspace(0, 1, 7)[:, None]
    full, approximate = (effective_sample_size(its, rho, m) for m in ("full", "approximate"))
    np.testing.assert_allclose(full, approximate, rtol=1e-14)
    assert not np.allclose(
        *(effective_sample_size(design(FORMULAS[0]), rho, m) for m in ("full", "approximate"))
    )


# Against lme4


TABLE = pd.read_csv(references.HERE / "scores.csv")
LME4 = list(TABLE.groupby(["data", "formula"], sort=False))


@pytest.mark.parametrize("case, rows", LME4, ids=[data for (data, _), _ in LME4])
def test_agrees_with_lme4(case, rows):
    data, formula = case
    table = pd.read_csv(references.HERE / "samples" / f"{data}.metadata.csv", index_col="sample")
    its = design(formula, table)
    wide = rows.pivot(index="gene", columns="quantity", values="value")

    def of(prefix):
        return wide[[f"{prefix}.{name}" for name in its.random_names]].to_numpy()

    theta, fractions = of("theta"), of("fraction")
    for intercept, name in [(True, "score"), (False, "score_without_intercept")]:
        found = collinearity_score(its, theta, intercept)
        np.testing.assert_allclose(found, wide[name], rtol=0, atol=1e-8)
    for method in ("full", "approximate"):
        found = effective_sample_size(its, fractions, method)
        np.testing.assert_allclose(found, of(method), rtol=1e-8)


# Invariance


@given(
    st.permutations(["Age", "Sex", "(1|Individual)", "(1|Tissue)", "(1|Batch)"]),
    st.randoms(use_true_random=False),
)
def test_order_of_terms_samples_and_names_of_levels(terms, random):
    plain = design("~ Age + Sex + (1|Individual) + (1|Tissue) + (1|Batch)")
    theta = thetas(plain, 6)
    table = metadata()
    order = list(range(len(table)))
    random.shuffle(order)
    table = table.iloc[order]
    for name in ("Individual", "Tissue", "Batch"):
        levels = sorted(set(table[name]))
        names = [f"level {i:03}" for i in range(len(levels))]
        random.shuffle(names)
        table[name] = table[name].map(dict(zip(levels, names, strict=True)))
    its = design("~ " + " + ".join(terms), table)
    place = [plain.random_names.index(name) for name in its.random_names]
    np.testing.assert_allclose(
        collinearity_score(its, theta[:, place]), collinearity_score(plain, theta), atol=1e-10
    )
    rho = theta / (1 + theta)
    np.testing.assert_allclose(
        effective_sample_size(its, rho[:, place]),
        effective_sample_size(plain, rho)[:, place],
        rtol=1e-12,
    )


# Through a result


@pytest.fixture(scope="module")
def result():
    study = simulate(8, 60, {"Individual": 12, "Tissue": 3}, seed=5)
    expression = study.expression.copy()
    expression.iloc[3] = 1.0  # cannot be fitted
    return jaxvp.fit(expression, "~ Age + (1|Individual) + (1|Tissue)", study.metadata)


def test_score_of_a_result(result):
    scores = result.collinearity_score()
    assert scores.name == "collinearity_score" and scores.index.equals(result.fractions.index)
    assert list(scores.index[scores.isna()]) == [result.fractions.index[3]]
    theta = result.theta.dropna()
    expected = [dense_score(result.design, row) for row in theta.to_numpy()]
    np.testing.assert_allclose(scores.dropna(), expected, rtol=0, atol=1e-8)
    assert (result.collinearity_score(intercept=False).dropna() == 0).all()


def test_effective_sample_size_of_a_result(result):
    for method in ("full", "approximate"):
        sizes = result.effective_sample_size(method)
        assert list(sizes) == ["Individual", "Tissue"]
        assert sizes.iloc[3].isna().all() and sizes.drop(sizes.index[3]).notna().all(axis=None)
        # whatever the order of the columns
        pd.testing.assert_frame_equal(result.sort_columns().effective_sample_size(method), sizes)
    expected = effective_sample_size(
        result.design, result.fractions[["Individual", "Tissue"]].to_numpy()
    )
    np.testing.assert_array_equal(result.effective_sample_size(), expected)


def test_a_fixed_model_has_one_score(result):
    study = simulate(4, 60, {"Tissue": 3}, seed=6)
    expression = study.expression.copy()
    expression.iloc[1] = 0.0
    fixed = jaxvp.fit(expression, "~ Age + Tissue", study.metadata)
    scores = fixed.collinearity_score()
    expected = dense_score(fixed.design, ())
    np.testing.assert_allclose(scores, [expected, np.nan, expected, expected], rtol=0, atol=1e-12)
    with pytest.raises(DesignError, match="the model has none: all 60 samples count"):
        fixed.effective_sample_size()


def test_what_cannot_be_computed_says_so(result):
    with pytest.raises(ValueError, match="method='fast': it is 'full' or 'approximate'"):
        result.effective_sample_size("fast")
    for call in (lambda r: r.collinearity_score(), lambda r: r.effective_sample_size()):
        with pytest.raises(DataError, match="the result has no design"):
            call(replace(result, design=None))
        fewer = result.diagnostics.assign(n_obs=result.diagnostics["n_obs"] - 1)
        with pytest.raises(DataError, match="not those of the fit"):
            call(replace(result, diagnostics=fewer))


def test_a_saved_result_scores_the_same(result, tmp_path):
    result.save(tmp_path / "r.zip")
    again = jaxvp.load(tmp_path / "r.zip")
    pd.testing.assert_series_equal(again.collinearity_score(), result.collinearity_score())
