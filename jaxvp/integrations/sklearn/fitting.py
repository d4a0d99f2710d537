"""From what scikit-learn hands to an estimator to a fit, with scikit-learn's kind of errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import _num_samples, check_consistent_length, validate_data

import jaxvp
from jaxvp.results import SERIES, TABLES, Results

DTYPES = [np.float64, np.float32]


def check_X(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """X as an array of floats, samples x features; NaN is a measurement that is not there."""
    checked: Any = validate_data(
        estimator, X, reset=reset, dtype=DTYPES, ensure_all_finite="allow-nan", ensure_min_samples=1
    )
    return checked


def check_metadata(metadata: Any, X: Any) -> pd.DataFrame:
    """The metadata of the samples of X, row by row; None is a table without columns.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If it has another number of rows, or both have names and these differ.
    """
    if metadata is None:
        return pd.DataFrame(index=range(_num_samples(X)))
    if not isinstance(metadata, pd.DataFrame):
        raise TypeError(
            "metadata must be a pandas DataFrame, one row a sample of X, not "
            f"{type(metadata).__name__}"
        )
    check_consistent_length(X, metadata)
    if isinstance(X, pd.DataFrame) and not X.index.equals(metadata.index):
        raise ValueError(
            "the samples of X and of the metadata are not the same, or not in the same order (rows "
            "are taken by position): metadata.loc[X.index]"
        )
    return metadata


def fit(estimator: Any, X: Any, metadata: Any, formula: str, **options: Any) -> Results:
    """Fit all features.

    Parameters
    ----------
    estimator
        Gets scikit-learn's attributes of X.
    X, metadata
        As the estimator's `fit` got them.
    formula, **options
        Of `jaxvp.fit`.
    """
    values = check_X(estimator, X, reset=True)
    if len(values) < 2:
        raise ValueError(f"Found array with {len(values)} sample(s), and a model needs 2 or more")
    table = check_metadata(metadata, X)
    try:
        result = jaxvp.fit(values, formula, table, progress=False, **options)
    except jaxvp.DesignError as error:
        if metadata is not None:
            raise
        raise ValueError(
            f"{error}. No metadata was passed: fit(X, metadata=...); inside a pipeline or search, "
            "ask for it with set_fit_request(metadata=True) and enable metadata routing"
        ) from error
    return named(result, estimator)


def named(result: Results, estimator: Any) -> Results:
    """The result with the features' names, ``x0``, ``x1`` where they have none."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = [f"x{i}" for i in range(estimator.n_features_in_)]
    genes = pd.Index(np.asarray(names, dtype=object)).infer_objects()
    return replace(result, **{f: getattr(result, f).set_axis(genes) for f in (*TABLES, *SERIES)})
