"""A check of a fitted design finds what the check of its metadata found."""

import numpy as np
import pandas as pd
import pytest
from test_checks import STUDY

import jaxvp
from jaxvp.checks import check_fitted
from jaxvp.design import build
from jaxvp.formula import Formula

# What the metadata alone says: how many samples there were, and that a group holds numbers.
OF_METADATA = {"dropped", "numeric_group"}


@pytest.mark.filterwarnings("ignore:categorical fixed|these group the samples")
@pytest.mark.parametrize(
    "formula",
    [
        "~ Age + (1|Person) + (1|Tissue)",
        "~ Age + dose + (1|Clinic) + (1|Person)",
        "~ Tissue + dose + (1|Person)",
        "~ Clinic + (1|Person) + (1|Twin)",
        "~ Age + Tissue + Clinic",
        "~ Tissue*Clinic + dose",
        "~ Tissue:Clinic + dose",
        "~ dose*Tissue + (1|Person)",
        "~ C(Batch) + scale(dose) + poly(Age, 2)",
        "~ `Body Weight` + Batch + (1|Label) + (1|Person)",
        "~ 0 + Tissue + dose + (1|Run)",
        "~ Age + (1|Person:Tissue)",
        "~ (1|Person)",
        "~ dose",
    ],
)
def test_as_from_the_metadata(formula):
    expected = jaxvp.check_design(formula, STUDY)
    found = check_fitted(build(Formula.parse(formula), STUDY))
    for name in ("formula", "model", "can_be_fitted", "kept", "numeric", "fixed_factors", "random"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("nested", "identical", "constant_within", "absorbed", "columns", "rank"):
        assert getattr(found, name) == getattr(expected, name), name
    pd.testing.assert_frame_equal(found.factors, expected.factors)
    assert found.findings == tuple(f for f in expected.findings if f.kind not in OF_METADATA)
    if expected.correlations is None:
        assert found.correlations is None
    else:
        pd.testing.assert_frame_equal(found.correlations, expected.correlations, rtol=1e-9)


def test_dropped_samples_are_not_known():
    table = STUDY.copy()
    table.loc["s3", "Age"] = np.nan
    with pytest.warns(UserWarning, match="1 of 60 samples"):
        design = build(Formula.parse("~ Age + (1|Person)"), table)
    found = check_fitted(design)
    assert (found.samples, found.kept, found.dropped, found.missing) == (59, 59, (), {})
