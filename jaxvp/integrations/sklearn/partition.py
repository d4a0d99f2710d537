"""The fit as an estimator: shares of every feature, and a score to choose formulas by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from jaxvp import prediction
from jaxvp.design import multipliers_at
from jaxvp.design.others import code_others
from jaxvp.formula import Formula
from jaxvp.prediction import Term, Tile
from jaxvp.results import Results
from jaxvp.results.measured import Fit

from .fitting import check_metadata, check_X, fit

CRITERIA = ("held_out", "bic")


class VariancePartition(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Variance partitioning of every feature (`jaxvp.fit`) as an estimator of scikit-learn.

    As a step of a pipeline it hands X on unchanged: what it is fitted for are its attributes.

    Parameters
    ----------
    formula : str
        ``"~ Age + (1|Individual)"``.
    reml : bool
        Restricted maximum likelihood.
    criterion : {"held_out", "bic"}
        What `score` gives, greater is better. ``"held_out"``: the mean log density of samples that
        the fit has not seen, per sample and feature, given those that it has. ``"bic"``: minus the
        mean BIC of the fit (whatever samples are scored), per feature.
    fixed_part : str or None
        Only with ``reml=True`` and ``criterion="bic"``, and needed there: the fixed part, ``"~
        Age"``, that all formulas which are compared share. Restricted likelihoods of different
        fixed parts are likelihoods of different data, so that a formula with another one is
        refused.
    dtype, block_size, solver
        As in `jaxvp.fit`.

    Attributes
    ----------
    result_ : jaxvp.Results
        Everything; features are its genes.
    fractions_, diagnostics_ : DataFrame
        Its tables of the same names, features in rows.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Notes
    -----
    BIC counts variances, fixed columns and the residual's variance, and takes the number of
    samples for n; with REML the fixed columns are not counted (Pinheiro and Bates, 2000,
    Mixed-Effects Models in S and S-PLUS, section 2.4, count them; among formulas of one fixed part
    the order is the same), n is n - p.

    Examples
    --------
    >>> sklearn.set_config(enable_metadata_routing=True)
    >>> model = VariancePartition("~ (1|Batch)").set_fit_request(metadata=True)
    >>> model = model.set_score_request(metadata=True)
    >>> search = GridSearchCV(model, {"formula": ["~ (1|Batch)", "~ (1|Batch) + (1|Donor)"]})
    >>> search.fit(X, metadata=metadata).best_params_
    """

    def __init__(
        self,
        formula="~ 1",
        reml=False,
        *,
        criterion="held_out",
        fixed_part=None,
        dtype="float64",
        block_size="auto",
        solver="newton",
    ):
        self.formula = formula
        self.reml = reml
        self.criterion = criterion
        self.fixed_part = fixed_part
        self.dtype = dtype
        self.block_size = block_size
        self.solver = solver

    def fit(self, X: Any, y: Any = None, *, metadata: Any = None):
        """Fit all features.

        Parameters
        ----------
        X : array or DataFrame, samples x features
        y
            Not used.
        metadata : DataFrame
            One row a sample of X, in its order.

        Raises
        ------
        ValueError
            If X, the metadata or the formula cannot be used.
        """
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion={self.criterion!r}: use one of {', '.join(CRITERIA)}")
        self._check_comparable()
        options = {name: getattr(self, name) for name in ("dtype", "block_size", "solver", "reml")}
        self.result_: Results = fit(self, X, metadata, self.formula, **options)
        self.fractions_ = self.result_.fractions
        self.diagnostics_ = self.result_.diagnostics
        return self

    def transform(self, X: Any):
        """X, checked and unchanged."""
        check_is_fitted(self)
        return check_X(self, X, reset=False)

    def score(self, X: Any, y: Any = None, *, metadata: Any = None) -> float:
        """The criterion, averaged over the features that have a fit; greater is better.

        Parameters
        ----------
        X, metadata
            Samples and their metadata.
        y
            Not used.

        Raises
        ------
        ValueError
            If no feature has a fit; or if held-out samples have levels of a fixed effect that the
            fit has not seen.
        """
        check_is_fitted(self)
        if self.criterion == "bic":
            return _mean(-bic(self.result_))
        values = check_X(self, X, reset=False)
        return _mean(held_out(self.result_, values, check_metadata(metadata, X)))

    def _check_comparable(self) -> None:
        if not (self.reml and self.criterion == "bic"):
            return
        if self.fixed_part is None:
            raise ValueError(
                "restricted likelihoods can be compared only among formulas with the same fixed "
                'part: name it, fixed_part="~ Age", or use reml=False or criterion="held_out"'
            )
        mine, common = _fixed(self.formula), _fixed(self.fixed_part)
        if mine != common:
            raise ValueError(
                f"the fixed part of {self.formula!r} is not {self.fixed_part!r}: restricted "
                "likelihoods can be compared only among formulas with the same fixed part; use "
                'reml=False, or criterion="held_out"'
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _fixed(formula: str) -> tuple[bool, frozenset[frozenset[str]]]:
    """What of the fixed part matters: its terms in any order."""
    parsed = Formula.parse(formula)
    terms = frozenset(frozenset(factor.text for factor in term) for term in parsed.terms)
    return parsed.intercept, terms


def _mean(values: np.ndarray) -> float:
    if not np.isfinite(values).any():
        raise ValueError("no feature has a fit to score: see result_.diagnostics")
    return float(np.nanmean(values))


def bic(result: Results) -> np.ndarray:
    """``-2 log L + log(n) parameters`` of every feature."""
    p = result.coefficients.shape[1]
    size = result.diagnostics["n_obs"].to_numpy(np.float64)
    parameters = result.theta.shape[1] + 1
    if result.reml:
        size = size - p
    else:
        parameters += p
    return -2 * result.log_likelihood.to_numpy() + np.log(size) * parameters


def held_out(result: Results, X: np.ndarray, metadata: pd.DataFrame) -> np.ndarray:
    """Log density of other samples given those of the fit, per sample, of every feature.

    Samples that lack a value of a fixed variable are left out. See `jaxvp.prediction.density`.
    """
    fit_ = Fit(result, None, None, "held-out likelihood")
    design = fit_.design
    others = code_others(design, metadata, True, range(len(design.codes)))
    assert others.X is not None
    keep = np.isfinite(others.X).all(axis=1)
    if not keep.any():
        raise ValueError("none of the samples to score has a value of every variable")
    fixed, measured = others.X[keep], X[keep].astype(np.float64, copy=False)
    multipliers = np.ones((len(metadata), len(design.codes)))
    if design.slopes:
        multipliers = multipliers_at(design, metadata)
    single, terms = prediction.components(design), []
    for block in fit_.estimates.blocks:
        old, new = single[block[0]].codes, others.codes[block[0]]
        assert new is not None
        new = new[keep].copy()
        unknown = new < 0  # of no level: each is alone
        levels = max(len(design.levels[block[0]]), new.max() + 1)
        new[unknown] = levels + np.arange(unknown.sum())
        both = np.concatenate([old, new])
        known = np.hstack([single[i].columns for i in block])
        columns = np.concatenate([known, multipliers[keep][:, list(block)]])
        terms.append(Term(both, columns, int(both.max()) + 1))
    structure = prediction.arrange(terms) if terms else None
    out = np.full(len(result.sigma), np.nan)

    def use(tile: Tile) -> None:
        factors = [factor[tile.rows] for factor in fit_.estimates.factors]
        sigma = fit_.estimates.sigma[tile.rows]
        rest = measured[:, tile.rows] - fixed @ tile.coefficients.T
        whole = np.concatenate([tile.residual, rest])
        density = prediction.log_density(structure, whole, factors, sigma)
        density -= prediction.log_density(fit_.structure, tile.residual, factors, sigma)
        out[tile.rows] = density / len(rest)

    fit_.stream(use)
    return out
