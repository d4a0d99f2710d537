"""Fitted values, residuals and what terms add: methods of `Results`.

Each delegates to `jaxvp.prediction`, block after block of genes, for a result with its measurements
(`measured`). Names go in and tables come out here, everything between is arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxvp import prediction
from jaxvp.design import multipliers_at
from jaxvp.design.others import code_others
from jaxvp.expression import DataError
from jaxvp.prediction import Choice, Term, Tile

from .measured import Fit, choice_of, design_of


def fitted(
    self,
    expression: Any = None,
    *,
    weights: Any = None,
    terms: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Fitted values: the fixed part and the predicted random effects of every sample.

    Parameters
    ----------
    expression
        The measurements that were fitted. Needed after `jaxvp.load` only.
    weights
        As of `random_effects`.
    terms
        Only what these terms add, fixed or random, ``Intercept`` one of them. None for all.

    Returns
    -------
    DataFrame
        Genes x samples of the fit, in units of the measurements; of a gene that lacks measurements
        all samples. NaN for genes without a fit.

    Raises
    ------
    DataError
        As `random_effects`.

    See Also
    --------
    predict : the same for other samples.
    """
    fit = Fit(self, expression, weights, "fitted values")
    choice = fit.choice(terms)
    columns = prediction.chosen_columns(fit.terms, choice)
    out = fit.empty(fit.design.n)

    def use(tile: Tile) -> None:
        out[:, tile.rows] = _part(fit.design.X, columns, tile, choice)

    fit.stream(use)
    return fit.table(out)


def residuals(
    self,
    expression: Any = None,
    *,
    weights: Any = None,
    kind: str = "response",
    scaled: bool = False,
) -> pd.DataFrame:
    """What the model does not explain: measurements minus fitted values.

    Parameters
    ----------
    expression
        The measurements that were fitted. Needed after `jaxvp.load` only.
    weights
        As of `random_effects`.
    kind
        ``"response"``: in units of the measurements. ``"pearson"``: times the root of the
        observation's weight, so that all have one variance; the same where there are no weights.
    scaled
        Divide by the gene's sigma.

    Returns
    -------
    DataFrame
        Genes x samples of the fit. NaN for genes without a fit, and where nothing was measured.

    Raises
    ------
    DataError
        If there is no such kind; and as `random_effects`.

    Notes
    -----
    Kinds and scaling are those of lme4's ``residuals``.
    """
    if kind not in ("response", "pearson"):
        raise DataError(f'kind={kind!r}: use "response" (the default) or "pearson"')
    fit = Fit(self, expression, weights, "residuals")
    choice = fit.choice(None)
    columns = prediction.chosen_columns(fit.terms, choice)
    out = fit.empty(fit.design.n)
    unit = fit.estimates.sigma if scaled else np.ones(len(fit.estimates.sigma))

    def use(tile: Tile) -> None:
        rest = tile.residual - prediction.random_part(columns, tile.effects, choice)
        if kind == "pearson" and tile.weights is not None:
            rest *= np.sqrt(tile.weights)
        out[:, tile.rows] = rest / unit[tile.rows]

    fit.stream(use)
    return fit.table(out)


def predict(
    self,
    metadata: Any,
    terms: Iterable[str] | None = None,
    *,
    expression: Any = None,
    weights: Any = None,
    unknown_levels: str = "error",
) -> pd.DataFrame:
    """Expected measurements of other samples, given their metadata.

    Parameters
    ----------
    metadata
        A DataFrame: the samples, one a row, with the variables of the terms. Transforms (`scale`,
        `poly`, `bs`) use what they found in the samples of the fit.
    terms
        Only what these terms add, fixed or random, ``Intercept`` one of them. None for all.
    expression
        The measurements that were fitted, from which the random effects are predicted. Needed after
        `jaxvp.load` only, and for fixed terms never.
    weights
        As of `random_effects`.
    unknown_levels
        What a level means that the fit has not seen, or a missing one, of a grouping factor:
        ``"error"``, or ``"population"``, no effect of that term.

    Returns
    -------
    DataFrame
        Genes x the samples of `metadata`. NaN for genes without a fit, and for samples that lack a
        value of a fixed variable.

    Raises
    ------
    DesignError
        If a variable is not there, or a fixed factor has a level that the fit has not seen.
    DataError
        If a grouping factor has one and `unknown_levels` is ``"error"``; else as `random_effects`.

    Notes
    -----
    ``predict(newdata, allow.new.levels)`` of lme4.
    """
    if not isinstance(metadata, pd.DataFrame):
        raise DataError(
            "metadata must be a pandas DataFrame of the samples to predict, not "
            f"{type(metadata).__name__}"
        )
    if unknown_levels not in ("error", "population"):
        raise DataError(f'unknown_levels={unknown_levels!r}: use "error" or "population"')
    design = design_of(self, "prediction")
    choice = choice_of(design, terms)
    others = code_others(design, metadata, bool(choice.columns), choice.random)
    m = len(metadata)
    X = np.zeros((m, design.p)) if others.X is None else others.X
    new: dict[int, Term] = {}
    multipliers = np.ones((m, len(design.codes)))
    if any(design.slopes and design.multipliers[i] is not None for i in choice.random):
        multipliers = multipliers_at(design, metadata)
    for i in choice.random:
        codes = others.codes[i]
        assert codes is not None
        levels = len(design.levels[i])
        known = np.where(codes < levels, codes, -1)
        if unknown_levels == "error":
            _check_known(known, metadata, design.random_names[i])
        new[i] = Term(known, multipliers[:, [i]], levels)
    columns = prediction.chosen_columns(new, choice)
    if not choice.random:
        coefficients = self.coefficients.to_numpy(np.float64)
        out = prediction.fixed_part(X, coefficients, choice)
        out[:, ~np.isfinite(self.sigma.to_numpy(np.float64))] = np.nan
        return pd.DataFrame(out.T, self.fractions.index, metadata.index)
    fit = Fit(self, expression, weights, "prediction")
    out = fit.empty(m)

    def use(tile: Tile) -> None:
        out[:, tile.rows] = _part(X, columns, tile, choice)

    fit.stream(use)
    return pd.DataFrame(out.T, self.fractions.index, metadata.index)


def remove(
    self,
    expression: Any = None,
    terms: Iterable[str] = (),
    *,
    weights: Any = None,
    center: bool = False,
) -> pd.DataFrame:
    """Measurements without what some terms add, such as expression corrected for batches.

    Parameters
    ----------
    expression
        The measurements that were fitted. None: those that the fit read.
    terms
        The terms to take away, fixed (``"Age"``, all columns of ``"Tissue"``) or random.
    weights
        As of `random_effects`.
    center
        Take away each part without its mean over the samples of the fit, so that a gene keeps its
        level. Otherwise the level becomes that of a sample where the removed terms add nothing: a
        fixed effect at 0 or at its reference level.

    Returns
    -------
    DataFrame
        As the expression passed lies: genes x samples, or samples x genes; genes x samples without
        one. Only the samples of the fit; NaN for genes without a fit.

    Raises
    ------
    DataError
        As `random_effects`.

    Notes
    -----
    Random effects are shrunken: of a batch with few samples less is removed than its mean. The
    variance that the terms explain is not zero afterwards, but small; do not fit it again as if
    nothing had been removed.
    """
    fit = Fit(self, expression, weights, "corrected expression")
    rest = without(fit, fit.choice(terms), center)
    out = fit.empty(fit.design.n)

    def use(tile: Tile) -> None:
        out[:, tile.rows] = rest(tile)

    fit.stream(use)
    table = fit.table(out)
    return table if expression is None or fit.source.genes_in_rows else table.T


def without(fit: Fit, choice: Choice, center: bool) -> Callable[[Tile], Float[np.ndarray, "n g"]]:
    """What is left of the measurements of a tile when the parts of some terms are taken away."""
    X = fit.design.X
    columns = prediction.chosen_columns(fit.terms, choice)
    mean = None if columns is None else sp.csr_array(columns.mean(axis=0)[None])

    def rest(tile: Tile) -> Float[np.ndarray, "n g"]:
        left = tile.y - _part(X, columns, tile, choice)
        if center:
            left += _part(X.mean(axis=0)[None], mean, tile, choice)
        return left

    return rest


def _part(
    X: Float[np.ndarray, "m p"], columns: sp.csr_array | None, tile: Tile, choice: Choice
) -> Float[np.ndarray, "m g"]:
    fixed = prediction.fixed_part(X, tile.coefficients, choice)
    return fixed + prediction.random_part(columns, tile.effects, choice)


def _check_known(codes: Int[np.ndarray, " m"], metadata: pd.DataFrame, name: str) -> None:
    unknown = np.flatnonzero(codes < 0)
    if not len(unknown):
        return
    sample = metadata.index[unknown[0]]
    raise DataError(
        f"`{name}` has levels that the fit has not seen, or none, in {len(unknown):,} of "
        f"{len(metadata):,} samples (the first is {sample!r}): "
        'unknown_levels="population" predicts those without an effect of it'
    )
