"""What random slopes add to a result: covariances, and shares at given values of the covariates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxvp import fractions
from jaxvp.design import Design, given_variables, multipliers_at
from jaxvp.design.slopes import INTERCEPT
from jaxvp.expression import DataError

from .lookup import find


def covariance(
    design: Design, theta: pd.DataFrame, sigma: pd.Series, group: Any, correlation: bool
) -> pd.DataFrame:
    """Rows (gene, coefficient), columns coefficients, of one grouping factor."""
    names = list(dict.fromkeys(design.groups))
    group = names[find(group, pd.Index(names), "grouping factor")]
    places = [i for i, name in enumerate(design.groups) if name == group]
    coefficients = [design.coefficients[i] if design.slopes else INTERCEPT for i in places]
    genes, c = len(theta), len(places)
    rows = np.zeros((genes, c, c))  # L of all terms of the group
    blocks = design.blocks or [(i,) for i in range(len(design.random_names))]
    values = theta.to_numpy(np.float64)
    for block, factor in zip(blocks, fractions.factors(design, values), strict=True):
        if design.groups[block[0]] == group:
            own = [places.index(i) for i in block]
            rows[np.ix_(range(genes), own, own)] = factor
    if correlation:
        # Of rows of length one: of a perfect correlation exactly 1 or -1 is left.
        length = np.sqrt((rows**2).sum(axis=2))
        with np.errstate(invalid="ignore"):
            matrices = np.clip(
                (rows @ rows.swapaxes(1, 2)) / (length[:, :, None] * length[:, None]), -1, 1
            )
        matrices[:, range(c), range(c)] = np.where(length > 0, 1.0, np.nan)
        matrices[np.isnan(values).any(axis=1)] = np.nan
    else:
        rows = rows * sigma.to_numpy(np.float64)[:, None, None]
        matrices = rows @ rows.swapaxes(1, 2)
    index = pd.MultiIndex.from_product(
        [theta.index, coefficients], names=[theta.index.name or "gene", "coefficient"]
    )
    return pd.DataFrame(matrices.reshape(genes * c, c), index=index, columns=coefficients)


def fractions_at(
    design: Design,
    theta: pd.DataFrame,
    sigma: pd.Series,
    coefficients: pd.DataFrame,
    metadata: Any,
) -> pd.DataFrame:
    """Rows (gene, row of the metadata), columns grouping factors, fixed columns, Residuals."""
    if not isinstance(metadata, pd.DataFrame):
        raise DataError(
            "fractions_at takes a DataFrame with a column for every variable left of a bar, not "
            f"{type(metadata).__name__}"
        )
    if not len(metadata):
        raise DataError("the metadata given has no rows: one a set of values is needed")
    names, shares = fractions.at(
        design,
        theta.to_numpy(np.float64),
        sigma.to_numpy(np.float64),
        coefficients.to_numpy(np.float64),
        multipliers_at(design, metadata),
        given_variables(design),
    )
    index = pd.MultiIndex.from_product(
        [theta.index, metadata.index],
        names=[theta.index.name or "gene", metadata.index.name or "row"],
    )
    return pd.DataFrame(shares.reshape(-1, len(names)), index=index, columns=list(names))
