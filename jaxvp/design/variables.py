"""Metadata columns as a model reads them: numbers, or levels with integer codes.

A column may be numeric, bool, category, object, a nullable or Arrow type or pandas' own string.
What it is follows from its values, not from its container: an object column that holds nothing but
numbers (a transposed table has such columns) is numeric.
"""

import difflib
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxvp.formula import Variable


class DesignError(ValueError):
    """The formula and the metadata do not make a model that can be fitted."""


class Names(tuple[str, ...]):
    """A tuple that JAX takes for one leaf: 100,000 names are not 100,000 nodes to walk."""


Factor = tuple[Int[np.ndarray, " n"], Names]  # codes 0..levels-1, and the levels' names
Kind = Literal["numeric", "categorical", "date", "complex"]

NUMBERS_IN_OBJECTS = ("boolean", "integer", "floating", "mixed-integer-float", "decimal")
DATES_IN_OBJECTS = ("datetime", "datetime64", "date", "timedelta", "timedelta64", "period", "time")


def select(metadata: pd.DataFrame, names: tuple[str, ...]) -> dict[str, pd.Series]:
    """The columns of these names.

    Raises
    ------
    DesignError
        If there is no such column (with close matches), or there are two.
    """
    labels = [str(label) for label in metadata.columns]
    unknown = [name for name in names if name not in labels]
    if unknown:
        found = "; ".join(_unknown(name, labels, metadata.index.names) for name in unknown)
        shown = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "") or "none"
        raise DesignError(f"not a column of the metadata: {found}. Its columns are: {shown}")
    twice = [name for name in names if labels.count(name) > 1]
    if twice:
        raise DesignError(f"the metadata has more than one column named `{twice[0]}`: rename one")
    return {name: metadata.iloc[:, labels.index(name)] for name in names}


def _unknown(name: str, labels: list[str], index: list) -> str:
    if name in index:
        return f"`{name}` (it is the index: use metadata.reset_index({name!r}, drop=False))"
    lower = {label.lower(): label for label in reversed(labels)}
    close = [lower[name] for name in difflib.get_close_matches(name.lower(), lower, n=3)]
    maybe = " or ".join(Variable(label).text for label in close)
    return f"`{name}`" + (f" (did you mean {maybe}?)" if maybe else "")


def kind_of(column: pd.Series) -> Kind:
    """What a column holds. Bool counts as numeric, 0 and 1, as in formulaic."""
    types, dtype = pd.api.types, column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "categorical"
    if types.is_complex_dtype(dtype):
        return "complex"
    if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype):
        return "numeric"
    inferred = types.infer_dtype(column, skipna=True)
    if inferred in NUMBERS_IN_OBJECTS:
        return "numeric"
    if inferred in DATES_IN_OBJECTS:
        return "date"
    return "complex" if inferred == "complex" else "categorical"


def is_missing(column: pd.Series) -> Bool[np.ndarray, " n"]:
    """Where a column has no value. NaN counts in every type, nullable floats included."""
    try:
        missing = column.isna().to_numpy(dtype=bool)
    except ArithmeticError as error:  # of a decimal that signals when it is looked at
        raise DesignError(f"`{column.name}` holds a value that cannot be read: {error}") from None
    if pd.api.types.is_float_dtype(column.dtype):
        missing = missing | np.isnan(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return missing


def to_numbers(column: pd.Series) -> Float[np.ndarray, " n"]:
    """A numeric column without missing values, as float64."""
    if column.dtype == object:
        return column.to_numpy().astype(np.float64)  # knows Decimal, bool and Python's integers
    return column.to_numpy(dtype=np.float64)


def to_factor(column: pd.Series) -> Factor:
    """Codes and level names of a column without missing values.

    A category column keeps its order, without the levels that no sample has; others are sorted.
    """
    try:
        if isinstance(column.dtype, pd.CategoricalDtype):
            used = column.cat.remove_unused_categories()
            codes, levels = used.cat.codes.to_numpy(), used.cat.categories
        else:
            codes, levels = pd.factorize(column, sort=True)
    except Exception as error:  # whatever a foreign type raises that cannot be compared
        raise DesignError(
            f"`{column.name}` holds values that cannot be levels ({error}): make them text"
        ) from None
    names = to_names(levels)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DesignError(
            f"`{column.name}` has different levels that read the same, '{twice}' (a number and a "
            "text?): make all values one type, for example with .astype(str)"
        )
    return codes.astype(np.int32), names


def to_names(labels: pd.Index | np.ndarray) -> Names:
    """Labels as text."""
    return Names(map(str, np.asarray(labels, dtype=object).tolist()))


def interaction(factors: list[Factor]) -> Factor:
    """The factor whose levels are the combinations that are present, named ``x:y``.

    They are numbered in the order of the first factor, within it of the second, and so on.
    """
    codes, names = factors[0]
    for other, levels in factors[1:]:
        # Renumbered after every factor, so that the products never overflow.
        pairs = codes.astype(np.int64) * len(levels) + other
        codes, present = pd.factorize(pairs, sort=True)
        first, second = np.divmod(present, len(levels))
        names = Names(f"{names[i]}:{levels[j]}" for i, j in zip(first, second, strict=True))
    return codes.astype(np.int32), names
