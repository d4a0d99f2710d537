"""The fixed model against R's lm (committed table, `reference/fixed.R`) and statsmodels: 1e-10."""

import functools

import numpy as np
import oracles
import pandas as pd
import pytest
from references import HERE, part, sample

import jaxvp
from jaxvp.simulation import simulate

TABLE = pd.read_csv(HERE / "fixed.csv")
MODELS = list(TABLE[["data", "formula"]].drop_duplicates().itertuples(index=False, name=None))


def r_name(column):
    """`Tissue[T.b]:Age` as R writes it: `Tissueb:Age`."""
    return (
        column.replace("[T.", "")
        .replace("[", "")
        .replace("]", "")
        .replace("Intercept", "(Intercept)")
    )


@functools.cache
def fitted(data, formula):
    expression, metadata, _ = sample(data)
    return jaxvp.fit(expression.iloc[:10], formula, metadata)


@pytest.mark.parametrize("data, formula", MODELS)
def test_r(data, formula):
    result = fitted(data, formula)
    rows = TABLE[(TABLE["data"] == data) & (TABLE["formula"] == formula)]
    assert (result.diagnostics["status"] == "converged").all()
    assert list(result.theta.columns) == []
    for gene, quantities in rows.groupby("gene"):
        table = quantities.set_index("quantity")["value"]
        want = part(table, "fraction")
        # The same terms (R lists main effects first, as the formula does not always).
        assert set(result.fractions.columns) == set(want.index)
        assert result.fractions.columns[-1] == "Residuals"
        np.testing.assert_allclose(result.fractions.loc[gene, want.index], want, atol=1e-10, rtol=0)
        assert result.sigma[gene] == pytest.approx(table["sigma"], rel=1e-10)
        assert result.log_likelihood[gene] == pytest.approx(table["log_likelihood"], rel=1e-10)
        for frame, prefix in ((result.coefficients, "beta"), (result.standard_errors, "se")):
            named, want = frame.rename(columns=r_name).loc[gene], part(table, prefix)
            assert set(named.index) == set(want.index)
            scale = np.abs(want).max()
            np.testing.assert_allclose(named[want.index], want, rtol=1e-10, atol=1e-11 * scale)


@pytest.mark.parametrize(
    "formula", ["~ Age + Tissue", "~ Age * Tissue", "~ Tissue:Batch", "~ Individual", "~ 1"]
)
def test_statsmodels(formula):
    expression, metadata, _ = simulate(4, 100, imbalance=0.5, seed=8)
    result = jaxvp.fit(expression, formula, metadata)
    for gene, y in expression.iterrows():
        fractions, ols = oracles.ols_fractions(y.to_numpy(), formula, metadata)
        np.testing.assert_allclose(
            result.fractions.loc[gene, fractions.index], fractions, atol=1e-10, rtol=0
        )
        assert result.sigma[gene] == pytest.approx(np.sqrt(ols.scale), rel=1e-10)
        assert result.log_likelihood[gene] == pytest.approx(ols.llf, rel=1e-10)
        # .variances are the sums of squares over n.
        squares = np.sum(ols.resid**2) / len(metadata)
        assert result.variances.loc[gene, "Residuals"] == pytest.approx(squares, rel=1e-10)
        for frame, want in ((result.coefficients, ols.params), (result.standard_errors, ols.bse)):
            want = np.sort(np.asarray(want))
            np.testing.assert_allclose(np.sort(frame.loc[gene]), want, rtol=1e-10, atol=1e-11)


def test_rows_sum_to_one_and_large_means_do_no_harm():
    expression, metadata, _ = simulate(50, 100, seed=9)
    plain = jaxvp.fit(expression, "~ Age + Tissue", metadata)
    assert np.abs(plain.fractions.sum(axis=1) - 1).max() < 1e-12
    rounded = (expression + 1e8) - 1e8
    shifted = jaxvp.fit(expression + 1e8, "~ Age + Tissue", metadata)
    again = jaxvp.fit(rounded, "~ Age + Tissue", metadata)
    pd.testing.assert_frame_equal(shifted.fractions, again.fractions, atol=1e-7, rtol=0)
    for scale in (1e-6, 1e6):
        scaled = jaxvp.fit(expression * scale, "~ Age + Tissue", metadata)
        pd.testing.assert_frame_equal(scaled.fractions, plain.fractions, atol=1e-10, rtol=0)


def test_reml_is_refused():
    expression, metadata, _ = simulate(2, 30, {"a": 3}, seed=9)
    with pytest.raises(jaxvp.DesignError, match="reml"):
        jaxvp.fit(expression, "~ Age", metadata, reml=True)
