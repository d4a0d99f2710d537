"""What must not matter does not: order, names, shift, scale, blocks, neighbours. Sums are 1."""

import functools

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

import jaxvp
from jaxvp.simulation import simulate

FORMULA = "~ Age + (1|a) + (1|b)"
N_GENES, N_SAMPLES = 12, 60
few = settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)
CRITERIA = pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])


@functools.cache
def study():
    return simulate(
        N_GENES, N_SAMPLES, {"a": 12, "b": 4}, zero_probability=0.3, imbalance=0.3, seed=21
    )


@functools.cache
def base(reml=False):
    expression, metadata, _ = study()
    return jaxvp.fit(expression, FORMULA, metadata, reml=reml)


def assert_same(one, other, rtol=1e-9, theta=1e-6, shares=1e-9):
    """The tables of two results, columns in any order."""
    assert (one.diagnostics["status"] == other.diagnostics["status"]).all()
    pairs = [(one.fractions, other.fractions, shares)]
    pairs += [(one.coefficients, other.coefficients, rtol)]
    pairs += [(one.standard_errors, other.standard_errors, rtol)]
    pairs += [(one.theta, other.theta, theta)]
    for mine, its, tolerance in pairs:
        assert set(mine.columns) == set(its.columns)
        pd.testing.assert_frame_equal(mine, its[mine.columns], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.sigma, other.sigma, rtol=1e-9)
    np.testing.assert_allclose(one.log_likelihood, other.log_likelihood, atol=1e-9)


def assert_identical(one, other):
    for name in ("fractions", "variances", "coefficients", "standard_errors", "theta"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    for name in ("sigma", "log_likelihood"):
        pd.testing.assert_series_equal(getattr(one, name), getattr(other, name), check_exact=True)


@CRITERIA
def test_again_is_bit_identical(reml):
    expression, metadata, _ = study()
    again = jaxvp.fit(expression, FORMULA, metadata, reml=reml)
    assert_identical(base(reml), again)
    pd.testing.assert_frame_equal(base(reml).diagnostics, again.diagnostics)


@few
@given(seeds)
def test_order_of_genes(seed):
    expression, metadata, _ = study()
    order = np.random.default_rng(seed).permutation(N_GENES)
    result = jaxvp.fit(expression.iloc[order], FORMULA, metadata)
    assert list(result.fractions.index) == list(expression.index[order])
    assert_same(_reindexed(base(), expression.index[order]), result)


class _reindexed:
    """A view of a result with its genes in another order."""

    def __init__(self, result, genes):
        self._result, self._genes = result, genes

    def __getattr__(self, name):
        return getattr(self._result, name).loc[self._genes]


@CRITERIA
@few
@given(seed=seeds)
def test_order_of_samples(reml, seed):
    expression, metadata, _ = study()
    rng = np.random.default_rng(seed)
    columns, rows = rng.permutation(N_SAMPLES), rng.permutation(N_SAMPLES)
    result = jaxvp.fit(expression.iloc[:, columns], FORMULA, metadata.iloc[rows], reml=reml)
    assert_same(base(reml), result)


@few
@given(seeds)
def test_names_and_order_of_levels(seed):
    expression, metadata, _ = study()
    rng = np.random.default_rng(seed)
    renamed = metadata.copy()
    for factor in "ab":
        old = np.unique(metadata[factor])
        new = rng.permutation([f"level {i} of ü" for i in range(len(old))])
        renamed[factor] = pd.Categorical(metadata[factor].map(dict(zip(old, new, strict=True))))
        renamed[factor] = renamed[factor].cat.reorder_categories(rng.permutation(new))
    assert_same(base(), jaxvp.fit(expression, FORMULA, renamed))


@pytest.mark.parametrize(
    ("formula", "reml"),
    [
        ("~ (1|b) + Age + (1|a)", False),  # compiles: the order is another one
        pytest.param("~ (1|b) + Age + (1|a)", True, marks=pytest.mark.slow),
        ("~ (1|a) + (1|b) + Age", False),
        ("~ (1|a) + (1|b) + Age", True),
    ],
)
def test_order_of_terms(formula, reml):
    expression, metadata, _ = study()
    assert_same(base(reml), jaxvp.fit(expression, formula, metadata, reml=reml))


@CRITERIA
def test_shift(reml):
    """A large mean: nothing is lost but the digits that the sum itself rounded away."""
    expression, metadata, _ = study()
    shifted = expression + 1e8
    a = jaxvp.fit(shifted, FORMULA, metadata, reml=reml)
    b = jaxvp.fit(shifted - 1e8, FORMULA, metadata, reml=reml)
    assert np.abs(a.fractions - b.fractions).max().max() < 1e-7
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, atol=1e-7)
    np.testing.assert_allclose(a.coefficients["Intercept"], b.coefficients["Intercept"] + 1e8)
    np.testing.assert_allclose(a.coefficients["Age"], b.coefficients["Age"], rtol=1e-6, atol=1e-8)
    # 1.5e-8 is the spacing of numbers about 1e8: beside a standard deviation of 1 it is little.
    assert np.abs(a.fractions - base(reml).fractions).max().max() < 1e-6


@CRITERIA
@pytest.mark.parametrize("factor", [1e-6, 1e6, -3.0, 1e-150, 1e150])
def test_scale(factor, reml):
    expression, metadata, _ = study()
    result = jaxvp.fit(expression * factor, FORMULA, metadata, reml=reml)
    reference = base(reml)
    assert np.abs(result.fractions - reference.fractions).max().max() < 1e-9
    np.testing.assert_allclose(result.sigma, reference.sigma * abs(factor), rtol=1e-9)
    np.testing.assert_allclose(result.coefficients, reference.coefficients * factor, rtol=1e-7)
    np.testing.assert_allclose(
        result.standard_errors, reference.standard_errors * abs(factor), rtol=1e-9
    )
    dof = N_SAMPLES - 2 * reml
    np.testing.assert_allclose(
        result.log_likelihood, reference.log_likelihood - dof * np.log(abs(factor)), rtol=1e-11
    )


@pytest.mark.parametrize("size", [1, 5, 64])
def test_block_size(size):
    expression, metadata, _ = study()
    result = jaxvp.fit(expression, FORMULA, metadata, block_size=size)
    assert_same(base(), result, rtol=1e-9, theta=1e-7)


def test_memory_layout():
    expression, metadata, _ = study()
    turned = pd.DataFrame(np.asfortranarray(expression), expression.index, expression.columns)
    assert_same(base(), jaxvp.fit(turned, FORMULA, metadata))
    assert_same(base(), jaxvp.fit(expression.T, FORMULA, metadata))


def test_duplicated_genes_get_the_same_numbers():
    expression, metadata, _ = study()
    copy = expression.rename(index=lambda gene: f"copy of {gene}")
    result = jaxvp.fit(pd.concat([expression, copy]), FORMULA, metadata)
    half = slice(0, N_GENES), slice(N_GENES, None)
    first, second = (result.fractions.iloc[rows].to_numpy() for rows in half)
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)
    first, second = (result.log_likelihood.iloc[rows].to_numpy() for rows in half)
    np.testing.assert_allclose(first, second, rtol=1e-12)


BAD = {
    "missing": lambda y: np.full_like(y, np.nan),
    "infinite": lambda y: np.where(np.arange(len(y)) == 3, -np.inf, y),
    "constant": lambda y: np.full_like(y, 7.0),
    "zeros": lambda y: np.zeros_like(y),
    "huge": lambda y: y * 1e200,
    "minute": lambda y: y * 1e-200,
    "explained": lambda y: 2.0 + 3.0 * study().metadata["Age"].to_numpy(),
    "by a level": lambda y: (study().metadata["a"] == "a_01").to_numpy(float),
}
STATUS = {
    "missing": "too_few_observations",
    "infinite": "non_finite",
    "constant": "zero_variance",
    "zeros": "zero_variance",
    "huge": "converged",
    "minute": "converged",
    "explained": "zero_residual",
    "by a level": "zero_residual",
}


@CRITERIA
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_gene_changes_no_other(kind, reml):
    expression, metadata, _ = study()
    spoilt = expression.copy()
    spoilt.iloc[5] = BAD[kind](expression.iloc[5].to_numpy())
    result = jaxvp.fit(spoilt, FORMULA, metadata, reml=reml)
    others = np.delete(np.arange(N_GENES), 5)
    for name in ("fractions", "variances", "theta", "coefficients", "standard_errors"):
        mine, its = (getattr(r, name).iloc[others] for r in (result, base(reml)))
        pd.testing.assert_frame_equal(mine, its, check_exact=True)
    assert (result.log_likelihood.iloc[others] == base(reml).log_likelihood.iloc[others]).all()
    status = result.diagnostics["status"].iloc[5]
    assert status == STATUS[kind]
    assert result.fractions.iloc[5].isna().all() == (status != "converged")


@few
@given(st.lists(st.sampled_from(sorted(BAD)), min_size=2, max_size=N_GENES), seeds)
def test_rows_sum_to_one_or_are_missing(kinds, seed):
    expression, metadata, _ = study()
    spoilt = expression.copy()
    rows = np.random.default_rng(seed).permutation(N_GENES)[: len(kinds)]
    for row, kind in zip(rows, kinds, strict=True):
        spoilt.iloc[row] = BAD[kind](expression.iloc[row].to_numpy())
    result = jaxvp.fit(spoilt, FORMULA, metadata)
    fine = result.diagnostics["status"] == "converged"
    assert np.abs(result.fractions[fine].sum(axis=1) - 1).max() < 1e-12
    assert (result.fractions[fine].to_numpy() >= 0).all()
    for name in ("fractions", "variances", "theta", "coefficients", "standard_errors"):
        assert getattr(result, name)[~fine].isna().all(axis=None)
    assert list(result.fractions.index) == list(expression.index)
