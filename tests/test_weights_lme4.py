"""Weights of each gene's own against lme4's tables (`reference/weights.R`)."""

import numpy as np
import pytest
from references import part, sample, weighted

import jaxvp


@pytest.mark.slow
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
@pytest.mark.parametrize("name", ["pairs", "crossed", "one_factor"])
def test_lme4(name, reml):
    weights, formula, table = weighted(name)
    expression, metadata, _ = sample(name)
    expression = expression.loc[weights.index]
    result = jaxvp.fit(expression, formula, metadata, weights=weights, reml=reml)
    assert (result.diagnostics["status"] == "converged").all()
    assert list(result.diagnostics["n_obs"]) == list((weights > 0).sum(axis=1))
    for gene, row in table[table["reml"] == reml].iterrows():
        assert result.log_likelihood[gene] == pytest.approx(row["log_likelihood"], abs=1e-6)
        assert result.sigma[gene] == pytest.approx(row["sigma"], rel=1e-5)
        for frame, prefix, close in (
            (result.fractions, "fraction", 1e-5),
            (result.coefficients, "beta", 1e-5),
            (result.standard_errors, "se", 1e-5),
        ):
            want = part(row, prefix)
            np.testing.assert_allclose(frame.loc[gene, want.index], want, atol=close)
