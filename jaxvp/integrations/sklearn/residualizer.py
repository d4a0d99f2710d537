"""The estimated effects of some terms, taken out of X: of samples of the fit and of new ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from jaxvp.design import multipliers_at
from jaxvp.design.others import code_others
from jaxvp.prediction import Effects, Term, Tile, chosen_columns, fixed_part, random_part
from jaxvp.results import Results
from jaxvp.results.measured import Fit

from .fitting import check_metadata, check_X, fit


class MixedEffectsResidualizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Take the estimated effects of some terms, fixed or random, out of every feature.

    The model is fitted with all terms of the formula, so that what is removed for one (``Batch``)
    is not what another explains (``Individual``).

    Parameters
    ----------
    formula : str
        ``"~ Age + (1|Batch) + (1|Individual)"``.
    remove : list of str
        Terms of the formula.
    reml : bool
        Restricted maximum likelihood.
    center : bool
        Take away each effect without its mean over the samples of the fit: features keep their
        level.

    Attributes
    ----------
    result_ : jaxvp.Results
        The fit; features are its genes.

    Notes
    -----
    New samples: a level that the fit knows has its predicted effect (BLUP), another one of a random
    term the population's, none. A fixed factor must have a level that the fit knows. A feature that
    could not be fitted is handed on as it is.

    The metadata reaches `transform` inside a pipeline by `set_transform_request(metadata=True)`.
    """

    def __init__(self, formula="~ 1", remove=(), *, reml=False, center=False):
        self.formula = formula
        self.remove = remove
        self.reml = reml
        self.center = center

    def fit(self, X: Any, y: Any = None, *, metadata: Any = None):
        """Fit all features; parameters and errors as of `VariancePartition.fit`."""
        self.result_: Results = fit(self, X, metadata, self.formula, reml=self.reml)
        fit_ = Fit(self.result_, None, None, "effects to remove")
        self._choice = fit_.choice(list(self.remove))
        # Kept as arrays, so that a pickled estimator needs no measurements.
        sizes = {i: len(fit_.design.levels[i]) for i in self._choice.random}
        self._effects = {i: fit_.empty(size) for i, size in sizes.items()}

        def use(tile: Tile) -> None:
            for i, effects in self._effects.items():
                effects[:, tile.rows] = tile.effects.values[i]

        fit_.stream(use)
        columns = chosen_columns(fit_.terms, self._choice)
        mean = self._part(fit_.design.X, columns).mean(axis=0)
        self._level = mean if self.center else np.zeros(len(mean))
        return self

    def transform(self, X: Any, *, metadata: Any = None):
        """X without the effects of the removed terms.

        Parameters
        ----------
        X, metadata
            Samples and their metadata, those of the fit or others.

        Raises
        ------
        ValueError
            If the metadata lacks a variable or a value of it, or has a level of a fixed factor that
            the fit has not seen.
        """
        check_is_fitted(self)
        values = check_X(self, X, reset=False)
        design = self.result_.design
        assert design is not None
        others = code_others(
            design,
            check_metadata(metadata, X),
            any(design.term_of_column[j] >= 0 for j in self._choice.columns),
            self._choice.random,
        )
        fixed = np.ones((len(values), design.p)) if others.X is None else others.X
        missing = np.isnan(fixed).any(axis=1)
        if missing.any():
            raise ValueError(
                f"{missing.sum()} of {len(fixed)} samples lack a value of a fixed variable: "
                "leave them out, or impute it"
            )
        multipliers = np.ones((len(values), len(design.codes)))
        if any(design.slopes and design.multipliers[i] is not None for i in self._choice.random):
            multipliers = multipliers_at(design, check_metadata(metadata, X))
        terms = {}
        for i in self._choice.random:
            codes, levels = others.codes[i], len(design.levels[i])
            assert codes is not None
            codes = np.where(codes < levels, codes, -1)
            terms[i] = Term(codes, multipliers[:, [i]], levels)
        part = self._part(fixed, chosen_columns(terms, self._choice)) - self._level
        return (values - np.where(np.isnan(part), 0, part)).astype(values.dtype, copy=False)

    def fit_transform(self, X: Any, y: Any = None, *, metadata: Any = None):
        """`fit`, then `transform` with the same metadata."""
        return self.fit(X, y, metadata=metadata).transform(X, metadata=metadata)

    def _part(self, X: np.ndarray, columns: Any) -> np.ndarray:
        """What the removed terms add; NaN for features without a fit."""
        coefficients = self.result_.coefficients.to_numpy(np.float64)
        places = range(max(self._effects, default=-1) + 1)
        values = [self._effects.get(i, np.zeros((0, len(coefficients)))) for i in places]
        effects = Effects(values, [], np.zeros(len(coefficients)))
        return fixed_part(X, coefficients, self._choice) + random_part(
            columns, effects, self._choice
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
