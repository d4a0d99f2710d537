"""Columns of Q that are the same in all samples of a level take no pass over the measurements."""

import numpy as np
import pandas as pd
import pytest

from jaxvp.design import build
from jaxvp.formula import Formula
from jaxvp.statistics import compress, statistics

# Samples, levels, formula, whether weighted, and which columns of Q are the same within levels.
CASES = {
    # The first number of a long column of ones is rounded like a number of order one.
    "many samples": (17_000, 950, "~ Age + (1|g) + (1|h)", False, [True, False]),
    "weighted": (600, 40, "~ Age + (1|g) + (1|h)", True, [True, False]),
    "of levels alone": (300, 20, "~ 0 + Born + Sex + (1|g)", False, [True, True]),
    "after one that varies": (300, 20, "~ 0 + Age + Born + (1|g)", False, [False, False]),
    "no fixed part": (300, 20, "~ 0 + (1|g)", False, []),
}


@pytest.mark.parametrize("name", CASES)
def test_coefficients_are_those_of_dense_algebra(name):
    n, levels, formula, weighted, expected = CASES[name]
    rng = np.random.default_rng(3)
    g = np.r_[np.arange(levels), rng.integers(0, levels, n - levels)]
    metadata = pd.DataFrame(
        {
            "Age": rng.normal(50, 9, n),
            "Born": rng.normal(5, 1, levels)[g],
            "Sex": rng.integers(0, 2, levels)[g] + 0.5,
            "g": pd.Categorical(g),
            "h": pd.Categorical(rng.integers(0, 7, n)),
        }
    )
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], n) if weighted else None
    compression = compress(build(Formula.parse(formula), metadata), weights)
    grouping = compression.grouping
    assert grouping is not None
    constant = grouping.constant
    found = np.zeros(compression.shared.p, bool) if constant is None else constant.mine
    np.testing.assert_array_equal(found, expected)

    y = rng.normal(1e4, 1, (n, 5)) + rng.normal(size=(levels, 5))[g]
    rows, root = np.arange(n), np.ones((n, 1))
    if weights is not None:
        assert compression.weighting is not None
        rows, root = compression.weighting.rows, compression.weighting.root
    block = statistics(compression, y[rows])
    dense = compression.q.T @ (root * y[rows])
    scale = np.sqrt((y[rows] ** 2).sum(axis=0))
    np.testing.assert_allclose(block.ols / scale, dense / scale, rtol=0, atol=1e-13)
