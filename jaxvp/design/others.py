"""Other samples in the columns and levels of a design that was built before.

Transforms use what they found in the samples of the fit (the mean of `scale`, the knots of `bs`),
factors are coded by its levels, and grouping factors get its codes; levels that it does not have
are numbered from there on, and a missing one is -1. A sample without a value of a fixed variable
gets a row of NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxvp.formula import names_in

from . import Design
from .fixed import label, materialize, variable_of
from .transforms import evaluate
from .variables import DesignError, is_missing, select, to_names


class OtherSamples(NamedTuple):
    """Rows are the samples of the metadata, all of them, in its order."""

    X: Float[np.ndarray, "m p"] | None
    """fixed columns; None if they were not asked for"""
    codes: tuple[Int[np.ndarray, " m"] | None, ...]
    """by random component; None for one that was not asked for"""


def code_others(
    design: Design, metadata: pd.DataFrame, fixed: bool, random: Sequence[int]
) -> OtherSamples:
    """Code other samples as those of the design.

    Parameters
    ----------
    design
        Of the fit.
    metadata
        The other samples, in rows. Only the variables of what is asked for need to be there.
    fixed
        Whether the fixed columns are wanted.
    random
        Which random components are, by their place in the design.

    Raises
    ------
    DesignError
        If a variable is not there, a fixed factor has a level that the fit has not seen, or a
        value is not where a function is defined.
    """
    codes: list[Int[np.ndarray, " m"] | None] = [None] * len(design.codes)
    for i in random:
        names = design.random_terms[i].group
        codes[i] = _codes(design.levels[i], [*select(metadata, names).values()])
    return OtherSamples(_fixed(design, metadata) if fixed else None, tuple(codes))


def _codes(levels: tuple[str, ...], columns: list[pd.Series]) -> Int[np.ndarray, " m"]:
    """The numbers of the levels by their names, of several columns ``x:y``; new ones follow."""
    if len(set(levels)) < len(levels):
        raise DesignError(
            "two levels of a grouping factor have the same name, and cannot be told by it: "
            "rename the levels of its variables"
        )
    missing = np.logical_or.reduce([is_missing(column) for column in columns])
    texts = [to_names(column.to_numpy(dtype=object)) for column in columns]
    known = {name: code for code, name in enumerate(levels)}
    names = map(":".join, zip(*texts, strict=True))
    found = np.array([known.setdefault(name, len(known)) for name in names], dtype=int)
    return np.where(missing, -1, found).astype(np.int32)


def _fixed(design: Design, metadata: pd.DataFrame) -> Float[np.ndarray, "m p"]:
    if design.coding is None:
        raise DesignError(
            "this result was saved by a version of jaxvp that did not keep how samples are coded, "
            "so that other samples cannot be: fit again"
        )
    formula = design.formula
    factors = [factor for term in formula.terms for factor in term]
    table = select(metadata, tuple(dict.fromkeys(n for f in factors for n in names_in(f))))
    present = np.ones(len(metadata), dtype=bool)
    for column in table.values():
        present &= ~is_missing(column)
    samples = metadata.index[present]
    table = {name: column.loc[present] for name, column in table.items()}
    levels, states = dict(design.coding.levels), design.coding.transforms()
    values: dict[str, Any] = {}
    for factor in dict.fromkeys(factors):
        name = label(factor)
        try:
            if name in levels:
                column = table[variable_of(factor)]
                values[name] = pd.Series(_categories(column, levels[name]))
            else:
                values[name] = evaluate(factor, table, samples, states)
        except DesignError as error:
            raise DesignError(f"the fixed term `{name}`: {error}") from None
    X = np.full((len(metadata), design.p), np.nan)
    if present.any():
        coded, columns, _ = materialize(formula, values, int(present.sum()))
        if columns != design.columns:  # cannot be: coding depends on the formula and levels alone
            raise DesignError(f"the fixed columns {columns} are not those of the fit")
        X[present] = coded
    return X


def _categories(column: pd.Series, levels: tuple[str, ...]) -> pd.Categorical:
    codes = _codes(levels, [column])
    unknown = np.flatnonzero(codes >= len(levels))
    if len(unknown):
        shown = ", ".join(map(repr, dict.fromkeys(column.iloc[unknown].tolist())))
        raise DesignError(
            f"the fit has not seen these levels of `{column.name}`: {shown} (it has "
            f"{', '.join(map(repr, levels[:8]))}{', ...' if len(levels) > 8 else ''}); a fixed "
            "effect has no estimate for others"
        )
    return pd.Categorical.from_codes(codes, list(levels))
