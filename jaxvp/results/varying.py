"""Variances and shares where slopes are random: methods of `Results` that delegate to `slopes`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jaxvp.design import Design
from jaxvp.expression import DataError

from . import slopes


def covariance(self, group: Any, *, correlation: bool = False) -> pd.DataFrame:
    """Covariances of a grouping factor's coefficients, or their correlations, for every gene.

    Parameters
    ----------
    group
        The grouping factor: ``"Subject"`` for ``(Days|Subject)``.
    correlation
        True gives correlations in place of covariances.

    Returns
    -------
    DataFrame
        Rows (gene, coefficient), columns coefficients: ``.loc[gene]`` is the matrix of a gene,
        with ``(Intercept)``, ``Days``, ``TissueB`` on both sides. Squared units of the
        measurements, per units of the slopes' variables. Zero between coefficients of terms
        that are not correlated (``||``). A correlation with a coefficient of variance zero is
        NaN; a perfect one is exactly 1 or -1. NaN for genes that could not be fitted.

    Raises
    ------
    DataError
        If there is no such grouping factor, or the result has no design.

    Notes
    -----
    ``VarCorr`` of lme4: ``sigma^2 L L'``, L the relative factor in `theta`.

    Examples
    --------
    >>> result = jaxvp.fit(expression, "~ Days + (Days|Subject)", metadata)
    >>> result.covariance("Subject").loc["TP53"]
    >>> result.covariance("Subject", correlation=True).xs("Days", level=1)["(Intercept)"]
    """
    return slopes.covariance(
        _any_design(self, "covariance"), self.theta, self.sigma, group, correlation
    )


def fractions_at(self, metadata: Any) -> pd.DataFrame:
    """The share of each component at given values of what stands left of the bars.

    With a random slope the variance between groups depends on the slope's variable. At a row z
    of multipliers (``(1, Days)`` for ``(Days|Subject)``) it is ``sigma^2 z'Gamma z``; shares
    are that, the variances of the fixed columns and ``sigma^2``, divided by their sum. A fixed
    column that reads a given variable is constant there and has share 0.

    Parameters
    ----------
    metadata
        A DataFrame, one row a set of values, with a column for every variable left of a bar.
        Others are not read.

    Returns
    -------
    DataFrame
        Rows (gene, row of `metadata`), columns: grouping factors by name, fixed columns,
        ``Residuals``. Rows sum to 1; NaN for genes that could not be fitted.

    Raises
    ------
    DesignError
        If a column is not there, has missing values or a level that the design has not.
    DataError
        If it is no DataFrame or has no rows, or the result has no design.

    Notes
    -----
    Covariance functions of random coefficients: Fitzmaurice, Laird and Ware, Applied
    Longitudinal Analysis (2011), ch. 8.

    Examples
    --------
    >>> days = pd.DataFrame({"Days": [0, 5, 9]}, index=["start", "middle", "end"])
    >>> result.fractions_at(days)["Subject"].unstack()
    """
    return slopes.fractions_at(
        _any_design(self, "shares at given values"),
        self.theta,
        self.sigma,
        self.coefficients,
        metadata,
    )


def _any_design(self, what: str) -> Design:
    if self.design is None:
        raise DataError(f"the result has no design, and the {what} needs it: fit again")
    if not self.design.codes:
        raise DataError(f"the model has no random term, and the {what} is about those")
    return self.design
