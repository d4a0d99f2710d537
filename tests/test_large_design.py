"""Many levels in more than one factor: factored, not swept, with interpolated class sizes.

A tenth of lme4's InstEval in size; `python -m benchmarks` runs it whole.
"""

import numpy as np
import oracles

import jaxvp
from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.likelihood import SWEEP_COLUMNS
from jaxvp.statistics import compress

FORMULA = "~ Age + (1|Student) + (1|Lecturer) + (1|Department)"


def test_a_tenth_of_insteval():
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
    for gene in study.expression.index:
        y = study.expression.loc[gene].to_numpy()
        best = oracles.best_mixedlm(y, FORMULA, study.metadata)
        assert result.log_likelihood[gene] >= best.log_likelihood - 1e-6
        np.testing.assert_allclose(result.sigma[gene], best.sigma, rtol=1e-6)
