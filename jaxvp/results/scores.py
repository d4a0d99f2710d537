"""What follows from design and fits: methods of `Results` that delegate to the left.

Where genes have weights or samples of their own, these are read once more (`measured`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp import collinearity
from jaxvp.design import Design, DesignError
from jaxvp.expression import DataError
from jaxvp.prediction import Tile

from .measured import Fit


def collinearity_score(
    self, *, intercept: bool = True, expression: Any = None, weights: Any = None
) -> pd.Series:
    """Largest correlation, in absolute value, of two estimated fixed effects of each gene.

    Near 1 (variancePartition's limit is 0.999) the two estimates can hardly be told apart.

    Parameters
    ----------
    intercept
        Whether the intercept counts as an effect, as in variancePartition: a variable far from
        its zero, such as a year, then scores high. False leaves it out.
    expression, weights
        Those of the fit, where observations were weighted or missing: the design is then another
        one by gene. Needed after `jaxvp.load` only.

    Returns
    -------
    Series
        By gene, from 0 to 1: 0 where there are fewer than two effects, NaN for genes that could
        not be fitted. Without random terms the same for all.

    Raises
    ------
    DataError
        If the result has no design, or measurements or weights are needed and not there.
    Notes
    -----
    ``colinearityScore`` of variancePartition (see `Results`).
    """
    design = _design(self, "collinearity score")
    alike = _alike(self, design)
    scores = np.full(len(self.fractions), np.nan)
    theta = self.theta.to_numpy(np.float64)
    if alike:
        fitted = np.isfinite(self.sigma.to_numpy(np.float64))
        scores[fitted] = collinearity.collinearity_score(design, theta[fitted], intercept)
    else:

        def use(tile: Tile) -> None:
            w = _counting(tile)
            own = collinearity.own_collinearity_score(design, theta[tile.rows], w, intercept)
            scores[tile.rows] = own

        Fit(self, expression, weights, "collinearity score").stream(use)
    return pd.Series(scores, index=self.fractions.index, name="collinearity_score")


def effective_sample_size(self, method: str = "full", *, expression: Any = None) -> pd.DataFrame:
    """How many independent samples the samples of each gene are worth.

    Parameters
    ----------
    method
        ``"full"`` takes the groups as they are, ``"approximate"`` as if all were of one size.
    expression
        The measurements, where some are missing: groups are then others by gene. Needed after
        `jaxvp.load` only.

    Returns
    -------
    DataFrame
        Genes x random intercepts: between the number of groups (the term explains everything) and
        the number of samples (it explains nothing). NaN for genes that could not be fitted.

    Raises
    ------
    DesignError
        If the model has no random term; or a random slope: the variance of a sample, and its
        correlation with others of its group, then follows the slope's variable, so that there is no
        one share in place of the intraclass correlation.
    ValueError
        If the method is another one.
    DataError
        If observations were weighted: samples of unequal worth have no number; else as
        `collinearity_score`.

    Notes
    -----
    ``ESS`` of variancePartition, after Liu and Liang (1997), Biometrics 53:937: one random term
    at a time, its variance fraction in place of the intraclass correlation.
    """
    design = _design(self, "effective sample size")
    if design.slopes:
        raise DesignError(
            "an effective sample size follows from one correlation within groups, and with the "
            f"random slopes of {self.formula} it is another one for every two samples: see "
            "fractions_at for the shares at given values, or fit random intercepts"
        )
    if self.weighted:
        raise DataError(
            "an effective sample size counts samples that are all worth the same, and these have "
            "weights: fit without them to see what grouping alone costs"
        )
    names = list(design.random_names)
    fractions = self.fractions.reindex(columns=names).to_numpy(np.float64)
    # Of all samples; it says what is wrong with the method or the model.
    sizes = collinearity.effective_sample_size(design, fractions, method)
    if not _alike(self, design):

        def use(tile: Tile) -> None:
            there = _counting(tile) > 0
            own = collinearity.own_effective_sample_size(
                design, fractions[tile.rows], there, method
            )
            sizes[tile.rows] = own

        Fit(self, expression, None, "effective sample size").stream(use)
    return pd.DataFrame(sizes, index=self.fractions.index, columns=names)


def _counting(tile: Tile) -> Float[np.ndarray, "n g"]:
    """The weights of a tile; zero for observations that do not count."""
    return np.broadcast_to(1.0 if tile.weights is None else tile.weights, tile.y.shape)


def _design(self, what: str) -> Design:
    if self.design is None:
        raise DataError(f"the result has no design, and the {what} needs it: fit again")
    return self.design


def _alike(self, design: Design) -> bool:
    """Whether all genes that were fitted have all of the design alike."""
    fitted = np.isfinite(self.sigma.to_numpy(np.float64))
    counts = self.diagnostics["n_obs"].to_numpy()[fitted]
    return not self.weighted and bool((counts == design.n).all())
