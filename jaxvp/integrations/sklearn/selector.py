"""Features kept by how much of their variance a component explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from jaxvp.design.variables import kind_of
from jaxvp.formula import Variable
from jaxvp.results import Results
from jaxvp.results.lookup import find

from .fitting import check_metadata, fit


class VarianceSelector(SelectorMixin, BaseEstimator):
    """Keep the features of which a component explains little, or much.

    Parameters
    ----------
    component : str
        A column of `jaxvp.Results.fractions`: ``"Batch"``, ``"Residuals"``.
    below, above : float or None
        A feature is kept if its share is less than `below` and more than `above`, where given.
    formula : str or None
        The model. None: the component alone, ``~ (1|Batch)``, or ``~ Age`` where it is numeric.
    reml : bool
        Restricted maximum likelihood.

    Attributes
    ----------
    result_ : jaxvp.Results
        The fit; features are its genes.
    fractions_ : DataFrame
        Features x components.

    Notes
    -----
    A feature that could not be fitted (`result_.diagnostics` says why) has no share and is dropped.

    Examples
    --------
    >>> VarianceSelector(component="Batch", below=0.1).fit_transform(X, metadata=metadata)
    """

    def __init__(self, component="Residuals", *, below=None, above=None, formula=None, reml=False):
        self.component = component
        self.below = below
        self.above = above
        self.formula = formula
        self.reml = reml

    def fit(self, X: Any, y: Any = None, *, metadata: Any = None):
        """Fit all features and choose among them; parameters as of `VariancePartition.fit`.

        Raises
        ------
        ValueError
            If there is no such component, or no threshold or one that is no share; else as
            `VariancePartition.fit`.
        """
        for name in ("below", "above"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value!r}: a share lies between 0 and 1")
        formula = self.formula
        if formula is None:
            formula = self._alone(check_metadata(metadata, X))
        self.result_: Results = fit(self, X, metadata, formula, reml=self.reml)
        self.fractions_ = self.result_.fractions
        place = find(self.component, self.fractions_.columns, "component")
        share = self.fractions_.iloc[:, place].to_numpy(np.float64)
        with np.errstate(invalid="ignore"):
            kept = np.isfinite(share)
            if self.below is not None:
                kept &= share < self.below
            if self.above is not None:
                kept &= share > self.above
        self.support_ = kept
        return self

    def _alone(self, metadata: pd.DataFrame) -> str:
        """The formula of the component alone."""
        if self.component not in metadata.columns:
            if self.component == "Residuals":
                return "~ 1"
            raise ValueError(
                f"component={self.component!r} is no column of the metadata: give the formula that "
                "has it"
            )
        text = Variable(self.component).text
        column: Any = metadata[self.component]
        return f"~ {text}" if kind_of(column) == "numeric" else f"~ (1|{text})"

    def _get_support_mask(self):
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
