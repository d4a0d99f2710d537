"""What a figure is drawn of: a table of fractions, checked, or an error that says what is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxvp.expression import DataError
from jaxvp.expression.annotated import is_annotated
from jaxvp.fractions import RESIDUALS
from jaxvp.results import Results
from jaxvp.results.annotated import fractions_in

# Where `jaxvp.tl.variance_partition` writes unless it is told otherwise.
KEY = "variance_partition"


def fractions_of(
    result: object, function: str, failed: bool = False, key: str = KEY
) -> pd.DataFrame:
    """The rows of fractions to draw.

    Parameters
    ----------
    result
        What the caller passed.
    function
        The name of the figure, for the message.
    failed
        Whether genes that could not be fitted stay, with NaN.
    key
        Of an AnnData: where in its `varm` the fractions are.

    Raises
    ------
    DataError, TypeError
        As every figure of fractions does; see `jaxvp.pl.violins`.
    """
    if is_annotated(result):
        result = fractions_in(result, key)
    if not isinstance(result, Results | pd.DataFrame):
        raise TypeError(
            f"{function} draws a jaxvp.Results, a DataFrame of fractions (genes x components) or "
            f"an AnnData that holds them, not {type(result).__name__}"
        )
    table: pd.DataFrame = result.fractions if isinstance(result, Results) else result
    table = table.set_axis([str(name) for name in table.columns], axis="columns")
    genes, components = table.shape
    if not components:
        raise DataError("the table of fractions has no columns: there is no component to draw")
    if not genes:
        raise DataError("the table of fractions has no rows: there is no gene to draw")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"two columns are called `{twice}`: rename one")
    text = [name for name, dtype in table.dtypes.items() if dtype.kind not in "fiu"]
    if text:
        raise DataError(f"not a table of fractions: column `{text[0]}` does not hold numbers")
    fitted = table.dropna()
    if len(fitted) == 0:
        why = "all have NaN"
        if isinstance(result, Results):
            counts = result.diagnostics["status"].value_counts()
            why = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        raise DataError(f"none of the {genes:,} genes could be fitted ({why}): nothing to draw")
    for name in fitted.columns:
        values = fitted[name].to_numpy(np.float64)
        lowest, highest = values.min(), values.max()
        # Fractions may miss 0 and 1 by a rounding error.
        if lowest < -1e-9 or highest > 1 + 1e-9:
            raise DataError(
                f"fractions lie between 0 and 1 and `{name}` goes from {lowest:.3g} to "
                f"{highest:.3g}: pass result.fractions, not variances or percentages"
            )
    return table if failed else fitted


def residuals_last(names: list[str]) -> list[str]:
    """Components in this order, but for ``Residuals``."""
    return sorted(names, key=lambda name: name == RESIDUALS)


def check_result(result: object, function: str, what: str) -> Results:
    """A result with its design; a table of fractions would not do.

    Raises
    ------
    TypeError
        If it is no result.
    DataError
        If it has lost its design.
    """
    if not isinstance(result, Results):
        raise TypeError(
            f"{function} needs a jaxvp.Results, which has {what}, not {type(result).__name__}"
        )
    if result.design is None:
        raise DataError(f"this result has no design, and {function} needs {what}: fit again")
    return result


def check_fitted(result: Results, place: int) -> None:
    """That one gene has a fit.

    Raises
    ------
    DataError
        If not; says why.
    """
    if np.isnan(result.sigma.iloc[place]):
        gene, status = result.sigma.index[place], result.diagnostics["status"].iloc[place]
        raise DataError(f"the gene {gene!r} could not be fitted ({status}): there is no model")
