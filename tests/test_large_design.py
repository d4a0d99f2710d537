"""Many levels in more than one factor: factored, not swept, with interpolated class sizes.

A tenth of lme4's InstEval in size; `python -m benchmarks` runs it whole.
"""

import numpy as np
import oracles
import pytest

import jaxvp
from jaxvp.batch import compiled
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.solver import large
from jaxvp.statistics import compress

FORMULA = "~ Age + (1|Student) + (1|Lecturer) + (1|Department)"


@pytest.mark.parametrize("reml", [pytest.param(False, marks=pytest.mark.slow), True])
def test_what_a_small_factor_explains_exactly_is_called_so(reml):
    """No certificate is to be had: rounding ends every search before the residual share is zero."""
    study = jaxvp.simulate(4, 600, {"g": 120, "h": 80, "i": 5}, imbalance=1.0, seed=5)
    codes = study.metadata["i"].astype("category").cat.codes.to_numpy()
    expression = study.expression.copy()
    rng = np.random.default_rng(2)
    for gene, noise in enumerate((0.0, 0.0, 0.0, 1e-4)):
        expression.iloc[gene] = rng.normal(size=5)[codes] + noise * rng.normal(size=600)
    result = jaxvp.fit(expression, study.formula, study.metadata, reml=reml)
    status = ["zero_residual"] * 3 + ["converged"]
    assert list(result.diagnostics["status"]) == status
    assert 1e-9 < result.fractions["Residuals"].iloc[3] < 1e-7


# The oracle takes half a minute a gene.
@pytest.mark.slow
@pytest.mark.parametrize("oracles_wanted", [1, 2])
def test_a_tenth_of_insteval(oracles_wanted):
    study = jaxvp.simulate(
        2,
        7342,
        {"Student": 297, "Lecturer": 113, "Department": 14},
        imbalance=1.0,
        fractions={"Student": 0.1, "Lecturer": 0.2, "Department": 0.0, "Age": 0.1},
        seed=3,
    )
    shared = compress(build(Formula.parse(FORMULA), study.metadata)).shared
    assert shared.n_columns > SWEEP_COLUMNS
    assert len(shared.sizes) < len(shared.level_sizes)  # interpolated
    result = jaxvp.fit(study.expression, FORMULA, study.metadata)
    assert (result.diagnostics["status"] == "converged").all()
    for gene in study.expression.index[:oracles_wanted]:
        y = study.expression.loc[gene].to_numpy()
        best = oracles.best_mixedlm(y, FORMULA, study.metadata)
        assert result.log_likelihood[gene] >= best.log_likelihood - 1e-6
        np.testing.assert_allclose(result.sigma[gene], best.sigma, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("reml", [False, True])
def test_weights_of_each_gene_s_own(reml):
    """Zero weights, missing values and lost levels in a large system, against dense algebra."""
    formula = "~ Age + (1|Student) + (1|Lecturer)"
    study = jaxvp.simulate(2, 300, {"Student": 90, "Lecturer": 70}, seed=5)
    X, Zs, names = oracles.design(formula, study.metadata)
    assert min(Z.shape[1] for Z in Zs) + X.shape[1] > SWEEP_COLUMNS
    rng = np.random.default_rng(6)
    w = rng.gamma(2, 0.5, study.expression.shape)
    w[rng.random(w.shape) < 0.1] = 0
    w[0, Zs[1][:, 3] > 0] = 0
    expression = study.expression.copy()
    expression.iloc[1] = expression.iloc[1].where(rng.random(300) > 0.15)
    result = jaxvp.fit(expression, formula, study.metadata, weights=w, reml=reml)
    for i, gene in enumerate(expression.index):
        y = expression.loc[gene].to_numpy()
        here = ~np.isnan(y) & (w[i] > 0)
        parts = [Z[here][:, Z[here].any(axis=0)] for Z in Zs]
        data = (y[here], X[here], parts)
        own = w[i, here] / w[i, here].mean()
        found = [oracles.polish(*data, theta, reml, own) for theta in oracles.starts(2)]
        theta, fit, _ = min(found, key=lambda one: one[1].deviance)
        assert result.diagnostics.loc[gene, "status"] == "converged"
        assert result.diagnostics.loc[gene, "n_obs"] == here.sum()
        assert result.log_likelihood[gene] == pytest.approx(fit.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(result.theta.loc[gene, names], theta, atol=1e-6)
        assert result.sigma[gene] == pytest.approx(fit.sigma, rel=1e-7)


@pytest.mark.slow  # two large programs to compile
def test_what_is_kept_of_a_preconditioner_changes_no_number(monkeypatch):
    """Where it is too large to be kept from burst to burst it is formed in each of them."""
    study = jaxvp.simulate(
        48, 900, {"g": 120, "h": 70, "i": 9}, imbalance=1.0, zero_probability=0.4, seed=4
    )
    found, kept, room = [], [], large._room_for_complement

    def spy(*arguments):
        kept.append(room(*arguments) is not None)
        return room(*arguments)

    monkeypatch.setattr(large, "_room_for_complement", spy)
    for share in (large._KEPT, 0.0):
        monkeypatch.setattr(large, "_KEPT", share)
        compiled._forget()
        found.append(jaxvp.fit(study.expression, study.formula, study.metadata))
    assert kept == [True, False]
    for name in ("fractions", "log_likelihood", "diagnostics"):
        one, other = (getattr(result, name) for result in found)
        assert one.equals(other), name
    compiled._forget()  # what was compiled with another share
