"""What a study is fitted with: weights of each gene's own or of each sample, holes, or both."""

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd

import jaxvp


class Given(NamedTuple):
    """Measurements, weights and metadata of a fit."""

    expression: pd.DataFrame
    weights: pd.DataFrame | pd.Series | None
    metadata: pd.DataFrame

    def fit(self, formula, **options):
        return jaxvp.fit(self.expression, formula, self.metadata, weights=self.weights, **options)

    def observed(self, gene):
        """Measurements, weights with mean 1, and places of the observations that count."""
        y = self.expression.loc[gene].to_numpy()
        w = self.weights
        w = pd.Series(1.0, self.metadata.index) if w is None else w
        w = (w.loc[gene] if w.ndim == 2 else w).to_numpy()
        here = np.flatnonzero(~np.isnan(y) & (w > 0))
        return y[here], w[here] / w[here].mean(), here


class WeightedStudy:
    """Genes x samples, metadata, and the samples that the second gene loses with its weights."""

    def __init__(self, expression, metadata, lost):
        self.expression, self.metadata = expression, metadata
        genes = {"index": expression.index, "columns": expression.columns}
        w = np.random.default_rng(0).gamma(3, 1, expression.shape)
        w[1, np.asarray(lost)] = 0
        self.table = pd.DataFrame(w, **genes)
        there = np.random.default_rng(1).random(expression.shape) > 0.15
        self.holes = expression.where(there)
        w = np.random.default_rng(2).gamma(3, 1, expression.shape[1])
        self.per_sample = pd.Series(w, expression.columns)

    def given(self, what):
        """``own`` weights, one a ``sample``, ``holes``, or the last two: ``both``."""
        y = self.holes if what in ("holes", "both") else self.expression
        w = {"own": self.table, "holes": None}.get(what, self.per_sample)
        return Given(y, w, self.metadata)

    @functools.cache  # noqa: B019 - a study lives as long as its module
    def fitted(self, formula, what, **options):
        """One fit for all tests that look at it."""
        return self.given(what).fit(formula, **options)
