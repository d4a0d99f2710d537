"""Tables of fractions, and results made of them, to draw."""

import numpy as np
import pandas as pd

import jaxvp

NAMES = ["Age", "Batch", "Subject", "Tissue", "Residuals"]


def table(genes=500, names=NAMES, zeros=0.4):
    """Fractions with many exact zeros; medians in the order Tissue, Subject, Batch, Age."""
    random = np.random.default_rng(3)
    share = random.gamma(np.linspace(0.3, 3, len(names)), size=(genes, len(names)))
    few = min(2, len(names) - 1)
    share[:, :few] *= (random.random((genes, 2)) > zeros)[:, :few]
    index = [f"g{i}" for i in range(genes)]
    return pd.DataFrame(share / share.sum(axis=1, keepdims=True), index=index, columns=names)


def results(fractions, status="converged"):
    """A result of these fractions; a gene with NaN has the status."""
    genes = fractions.index
    none = pd.DataFrame(index=genes)
    series = pd.Series(1.0, index=genes)
    failed = fractions.isna().any(axis=1)
    return jaxvp.Results(
        fractions=fractions,
        variances=fractions,
        coefficients=none,
        standard_errors=none,
        theta=none,
        sigma=series,
        log_likelihood=series,
        diagnostics=pd.DataFrame({"status": np.where(failed, status, "converged")}, index=genes),
        design=None,
        formula="~ 1",
        reml=False,
        block_size=1,
        versions={},
    )
