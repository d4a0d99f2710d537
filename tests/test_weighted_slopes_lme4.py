"""Random slopes with weights of each gene's own against lme4's tables (`slopes_weights.R`)."""

import warnings
from pathlib import Path

import pandas as pd
import pytest
import references

import jaxvp

FOLDER = Path(__file__).parent / "reference" / "slopes"


def lme4_cases():
    path = FOLDER / "weights.csv"
    rows = pd.read_csv(path)
    for (formula, reml), part in rows.groupby(["formula", "reml"], sort=False):
        yield pytest.param(formula, bool(reml), part, id=f"{formula}-{reml}")


@pytest.mark.slow
@pytest.mark.parametrize("formula, reml, rows", list(lme4_cases()))
def test_lme4(formula, reml, rows):
    """Tight lme4 with weights of each gene's own (`reference/slopes_weights.R`)."""
    metadata = pd.read_csv(FOLDER / "growth.metadata.csv", index_col="sample")
    expression = pd.read_csv(FOLDER / "growth.expression.csv", index_col="gene")
    weights = pd.read_csv(FOLDER / "growth.weights.csv", index_col=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = jaxvp.fit(
            expression.loc[weights.index], formula, metadata, weights=weights, reml=reml
        )
    assert (result.diagnostics["status"] == "converged").all()
    assert list(result.diagnostics["n_obs"]) == list((weights > 0).sum(axis=1))
    compared = 0
    for gene, own in rows.groupby("gene"):
        want = own.set_index("quantity")["value"]
        gain = result.log_likelihood[gene] - want["log_likelihood"]
        assert gain > -1e-6
        if gain > 1e-6:  # lme4 stopped short of this one
            continue
        compared += 1
        references.same_slopes(result, gene, want)
    assert compared >= len(weights) - 1
