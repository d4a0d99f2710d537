"""The columns left of the bars at values that are given: what ``result.fractions_at`` asks for.

A row of new metadata has for every random component its multiplier: 1 for an intercept, the value
of a numeric slope, and of a factor's level 1 where the row has that level and 0 elsewhere. What the
samples of the design decide (`scale`, `poly`, ...) is not kept: such a slope is read from a column
that has its name, ``scale(Days)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.formula import Call, Expression, Variable, names_in

from .fixed import label
from .slopes import INTERCEPT, parts
from .transforms import evaluate
from .variables import DesignError, is_missing, to_names

if TYPE_CHECKING:
    from . import Design

NEED_ALL_SAMPLES = ("scale", "center", "poly", "bs")


def given_variables(design: Design) -> tuple[str, ...]:
    """Metadata columns that stand left of a bar."""
    left = [
        name
        for term in design.formula.random
        for part in parts(term)
        for product in part.terms
        for factor in product
        for name in names_in(factor)
    ]
    return tuple(dict.fromkeys(left))


def multipliers_at(design: Design, metadata: pd.DataFrame) -> Float[np.ndarray, "rows k"]:
    """Multipliers of the design's random components at the rows of ``metadata``.

    Parameters
    ----------
    design
        Of the fit.
    metadata
        One row a set of values; a column for every variable left of a bar.

    Raises
    ------
    DesignError
        If a column is not there, has missing values, or a level that the design does not have.
    """
    table = {str(name): metadata.iloc[:, i] for i, name in enumerate(metadata.columns)}
    levels = dict(design.slope_levels)
    found: list[np.ndarray] = []
    place = 0
    for term in design.formula.random:
        for part in parts(term):
            block = design.blocks[place] if design.slopes else (place,)
            values: dict[str, np.ndarray] = {INTERCEPT: np.ones(len(metadata))}
            for product in part.terms:
                _add(values, product, table, levels, metadata.index, term.text)
            for component in block:
                name = design.coefficients[component] if design.slopes else INTERCEPT
                # A level that no row has.
                found.append(values.get(name, np.zeros(len(metadata))))
            place += 1
    return np.stack(found, axis=1)


def _add(
    values: dict[str, np.ndarray],
    product: tuple[Expression, ...],
    table: dict[str, pd.Series],
    levels: dict[str, tuple[str, ...]],
    samples: pd.Index,
    term: str,
) -> None:
    """Columns of one product of factors, by the names that their coefficients have."""
    number = np.ones(len(samples))
    names = np.full(len(samples), "", dtype=object)
    for factor in product:
        text = label(factor)
        if text in levels:
            own = _levels(factor, table, levels[text], term)
            parts_of = np.array([text + level for level in own], dtype=object)
        else:
            number = number * _numbers(factor, table, samples, term)
            parts_of = np.full(len(samples), text, dtype=object)
        names = np.where(names == "", parts_of, names + ":" + parts_of)
    for name in dict.fromkeys(names):
        values[name] = np.where(names == name, number, 0.0)


def _column(name: str, table: dict[str, pd.Series], term: str) -> pd.Series:
    if name not in table:
        raise DesignError(
            f"`{name}`, a slope of {term}, is not a column of the metadata given: add it"
        )
    column = table[name]
    if is_missing(column).any():
        raise DesignError(f"`{name}` has missing values: give one in every row")
    return column


def _levels(
    factor: Expression, table: dict[str, pd.Series], known: tuple[str, ...], term: str
) -> tuple[str, ...]:
    (name,) = names_in(factor)
    own = to_names(pd.Index(_column(name, table, term)))
    for level in own:
        if level not in known:
            raise DesignError(
                f"`{name}` has no level '{level}' in the design; it has {', '.join(known[:12])}"
            )
    return own


def _numbers(
    factor: Expression, table: dict[str, pd.Series], samples: pd.Index, term: str
) -> np.ndarray:
    text = label(factor)
    if text not in table and (function := _needs_all(factor)):
        raise DesignError(
            f"`{text}`, a slope of {term}, depends on all samples of the design ({function}): give "
            f"its values in a column named '{text}'"
        )
    if text in table and not isinstance(factor, Variable):
        factor = Variable(text)
    for name in names_in(factor):
        _column(name, table, term)
    return np.broadcast_to(np.asarray(evaluate(factor, table, samples), float), len(samples))


def _needs_all(expression: Expression) -> str | None:
    if not isinstance(expression, Call):
        return None
    if expression.function in NEED_ALL_SAMPLES:
        return expression.function
    inner = (_needs_all(argument) for argument in expression.arguments)
    return next((function for function in inner if function), None)
