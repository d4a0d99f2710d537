"""lme4's examples, from committed tables of tight fits (`reference/classics.R`)."""

import warnings

import numpy as np
import pandas as pd
import pytest
from references import classic_data, classics, part

import jaxvp


def r_name(column):
    """`temperature[T.185]:recipe[T.B]` as R writes it."""
    return column.replace("[T.", "").replace("]", "")


def cases():
    for case in classics():
        # Programs of several terms compile for long: once is enough for the quick tests.
        several = case[0].startswith(("cake", "Pastes", "Penicillin"))
        marks = [pytest.mark.slow] if several and not case[3] else []
        yield pytest.param(*case, id=f"{case[0]}-{'REML' if case[3] else 'ML'}", marks=marks)


@pytest.mark.parametrize("name, response, formula, reml, table", list(cases()))
def test_classic(name, response, formula, reml, table):
    data = classic_data(name)
    expression = pd.DataFrame([data[response]], index=["gene"])
    with warnings.catch_warnings():
        # Categorical fixed effects beside random terms, on purpose; grams that look like counts.
        if name.startswith(("cake", "Dyestuff")):
            warnings.simplefilter("ignore", UserWarning)
        result = jaxvp.fit(expression, formula, data.drop(columns=response), reml=bool(reml))

    assert result.diagnostics.loc["gene", "status"] == "converged"
    theta, want = result.theta.loc["gene"], part(table, "theta")
    assert set(theta.index) == set(want.index)
    np.testing.assert_allclose(theta[want.index], want, rtol=1e-6, atol=1e-9)
    assert result.diagnostics.loc["gene", "singular"] == (want == 0).any()
    assert result.sigma["gene"] == pytest.approx(table["sigma"], rel=1e-7)
    variances = part(table, "variance")
    np.testing.assert_allclose(result.variances.loc["gene", variances.index], variances, rtol=2e-6)

    if name == "cake":  # coded by polynomials there: another parametrisation from here on
        if not reml:
            assert result.log_likelihood["gene"] == pytest.approx(table["log_likelihood"], abs=1e-7)
        return
    assert result.log_likelihood["gene"] == pytest.approx(table["log_likelihood"], abs=1e-7)
    for frame, prefix in ((result.coefficients, "beta"), (result.standard_errors, "se")):
        row, want = frame.rename(columns=r_name).loc["gene"], part(table, prefix)
        assert set(row.index) == set(want.index)
        np.testing.assert_allclose(row[want.index], want, rtol=1e-6, atol=1e-8)
    row, want = result.fractions.rename(columns=r_name).loc["gene"], part(table, "fraction")
    assert set(row.index) == set(want.index)
    np.testing.assert_allclose(row[want.index], want, atol=1e-6)


def test_the_table_holds_what_it_should():
    names = {case[0] for case in classics()}
    assert names == {
        *("sleepstudy", "Dyestuff", "Dyestuff2", "Penicillin", "Pastes", "cake"),
        "cake (treatment)",
    }
    # Published: Bates et al. (2015) and lme4's help pages print these to one or four digits.
    criterion = {(c[0], bool(c[3])): -2 * c[4]["log_likelihood"] for c in classics()}
    assert criterion["Dyestuff", True] == pytest.approx(319.6543, abs=1e-4)
    assert criterion["Dyestuff", False] == pytest.approx(327.3271, abs=1e-4)
    assert criterion["Penicillin", True] == pytest.approx(330.8606, abs=1e-4)
    assert criterion["Pastes", True] == pytest.approx(246.9907, abs=1e-4)
