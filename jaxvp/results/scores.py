"""What follows from design and fits alone: methods of `Results` that delegate to the left."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jaxvp import collinearity
from jaxvp.design import Design
from jaxvp.expression import DataError


def collinearity_score(self, *, intercept: bool = True) -> pd.Series:
    """Largest correlation, in absolute value, of two estimated fixed effects of each gene.

    Near 1 (variancePartition's limit is 0.999) the two estimates can hardly be told apart.

    Parameters
    ----------
    intercept
        Whether the intercept counts as an effect, as in variancePartition: a variable far from
        its zero, such as a year, then scores high. False leaves it out.

    Returns
    -------
    Series
        By gene, from 0 to 1: 0 where there are fewer than two effects, NaN for genes that could
        not be fitted. Without random terms the same for all.

    Raises
    ------
    DataError
        If the result has no design.
    NotImplementedError
        If there are random slopes, or observations were weighted or missing (the design is then
        another one by gene).

    Notes
    -----
    ``colinearityScore`` of variancePartition (see `Results`).
    """
    design, fitted = _shared_design(self, "collinearity score")
    scores = np.full(len(fitted), np.nan)
    theta = self.theta.to_numpy(np.float64)[fitted]
    scores[fitted] = collinearity.collinearity_score(design, theta, intercept)
    return pd.Series(scores, index=self.fractions.index, name="collinearity_score")


def effective_sample_size(self, method: str = "full") -> pd.DataFrame:
    """How many independent samples the samples of each gene are worth.

    Parameters
    ----------
    method
        ``"full"`` takes the groups as they are, ``"approximate"`` as if all were of one size.

    Returns
    -------
    DataFrame
        Genes x random terms: between the number of groups (the term explains everything) and
        the number of samples (it explains nothing). NaN for genes that could not be fitted.

    Raises
    ------
    DesignError
        If the model has no random term.
    ValueError
        If the method is another one.
    DataError, NotImplementedError
        As `collinearity_score`.

    Notes
    -----
    ``ESS`` of variancePartition, after Liu and Liang (1997), Biometrics 53:937: one random term
    at a time, its variance fraction in place of the intraclass correlation.
    """
    design, _ = _shared_design(self, "effective sample size")
    names = list(design.random_names)
    fractions = self.fractions.reindex(columns=names).to_numpy(np.float64)
    sizes = collinearity.effective_sample_size(design, fractions, method)
    return pd.DataFrame(sizes, index=self.fractions.index, columns=names)


def _shared_design(self, what: str) -> tuple[Design, Bool[np.ndarray, " genes"]]:
    """The design of all genes, and which of them were fitted."""
    if self.design is None:
        raise DataError(f"the result has no design, and the {what} needs it: fit again")
    if self.design.slopes:
        raise NotImplementedError(f"the {what} is not there yet for random slopes")
    fitted = np.isfinite(self.sigma.to_numpy(np.float64))
    counts = self.diagnostics["n_obs"].to_numpy()[fitted]
    if self.weighted or (counts != self.design.n).any():
        raise NotImplementedError(
            f"the {what} is not there yet for weighted or missing observations"
        )
    return self.design, fitted
