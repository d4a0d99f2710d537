"""What a container holds: numbers, or what no model can take; and whether they look like counts.

A dtype answers for most containers. Python objects are looked at, once; text that reads as a number
is still text, since beside it there nearly always is text that does not.
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from jaxvp.warning import warn

from .blocks import Expression, Rows, to_float

NUMBERS_IN_OBJECTS = ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty")
# No logarithm of a measurement, whatever its base, is larger.
LARGEST_LOGARITHM = 50
# From here on every float is whole, which then says nothing.
LARGEST_COUNT = 2.0**53
OBJECTS_AT_ONCE = 1 << 20


class Culprit(NamedTuple):
    """A value that is no number."""

    gene: int
    """its place in the container"""
    sample: int
    """its place in the container"""
    what: str
    """what is held there, for the message"""


def find_in_array(values: Shaped[np.ndarray, "samples genes"], rows: Rows) -> Culprit | None:
    """The first value of an array that is no real number.

    Parameters
    ----------
    values
        Any dtype. Those of numbers are not looked at any further.
    rows
        The samples that are read.
    """
    if values.dtype.kind in "fiub" or not values.size:
        return None
    positions = np.arange(len(values))[rows]
    if values.dtype != object:
        first = values[positions[0], 0]
        return Culprit(0, int(positions[0]), describe(first, values.dtype))
    step = max(1, OBJECTS_AT_ONCE // len(values))
    for start in range(0, values.shape[1], step):
        part = values[:, start : start + step][rows]
        kind = pd.api.types.infer_dtype(part.ravel(), skipna=True)
        if kind in NUMBERS_IN_OBJECTS and _are_floats(part):
            continue
        for gene, column in enumerate(part.T):
            for sample, value in enumerate(column):
                if not _is_missing(value) and not _is_float(value):
                    what = describe(value, values.dtype)
                    return Culprit(start + gene, int(positions[sample]), what)
    return None


def _are_floats(part: Shaped[np.ndarray, "samples genes"]) -> bool:
    """Whether Python's numbers, which know no limits, are floating-point numbers."""
    try:
        to_float(part)
    except (ArithmeticError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    """NumPy counts its durations among the integers."""
    return isinstance(value, Real | Decimal | np.bool_) and not isinstance(value, np.timedelta64)


def _is_float(value: Any) -> bool:
    if not _is_number(value):
        return False
    try:
        float(value)
    except (ArithmeticError, ValueError):
        return False
    return True


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT


def find_in_frame(
    frame: pd.DataFrame, transposed: bool, rows: Int[np.ndarray, " n"]
) -> Culprit | None:
    """The first value of a table of several types that is no real number.

    Parameters
    ----------
    frame
        The table.
    transposed
        True if its columns are the samples.
    rows
        Positions of the samples that are read.
    """
    positions = rows if transposed else np.arange(frame.shape[1])
    numeric = {dtype: _is_numeric(dtype) for dtype in frame.dtypes.unique()}
    for position in positions[[not numeric[dtype] for dtype in frame.dtypes.iloc[positions]]]:
        column = frame.iloc[:, position] if transposed else frame.iloc[rows, position]
        if column.dtype == object:
            found = find_in_array(column.to_numpy()[:, None], slice(None))
            if found is None:
                continue
            other, what = found.sample, found.what
        else:
            other = int(np.argmax(column.notna()))
            what = describe(column.iloc[other], column.dtype)
        if transposed:
            return Culprit(other, int(position), what)
        return Culprit(int(position), int(rows[other]), what)
    return None


def _is_numeric(dtype: Any) -> bool:
    types = pd.api.types
    return types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)


def describe(value: Any, dtype: Any) -> str:
    """What a value that is no number is."""
    if _is_number(value) and not _is_float(value):
        return "a number beyond all floating-point numbers"  # its text may be long, too
    shown = repr(str(value)[:40])
    if isinstance(dtype, pd.CategoricalDtype):
        return f"categories, {shown}"
    if isinstance(value, str | bytes):
        return f"text, {shown}"
    if isinstance(value, complex | np.complexfloating):
        return f"complex numbers, {shown}"
    return f"values of type {type(value).__name__}, {shown}"


def warn_counts(expression: Expression) -> None:
    """One warning if values look like raw counts: whole numbers, none negative, some large.

    Looks at a few genes and samples all over the container, and stops at the first fraction.
    """
    chunks, genes, samples = 8, 16, 500
    few = expression.take(_spread(expression.n_samples, samples))
    largest = 0.0
    for start in _spread(max(expression.n_genes - genes + 1, 1), chunks).tolist():
        part = few.block(start, min(start + genes, expression.n_genes))
        part = part[np.isfinite(part)]
        if (part < 0).any() or (part != np.floor(part)).any():
            return
        largest = max(largest, part.max(initial=0))
    if LARGEST_LOGARITHM < largest < LARGEST_COUNT:
        shown = f"{largest:,.0f}" if largest < 1e9 else f"{largest:.1e}"
        warn(
            f"the expression looks like raw counts (whole numbers, some as large as {shown}): "
            "linear models need a log scale, such as log2 of counts per million"
        )


def _spread(length: int, count: int) -> Int[np.ndarray, " few"]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))
