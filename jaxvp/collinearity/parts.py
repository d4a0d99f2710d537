"""The terms of a formula as sets of columns: what is correlated by `jaxvp.canonical_correlations`.

Fixed and random terms alike become a `Part`, as in variancePartition's ``canCorPairs``, which
takes ``(1|g)`` for ``g``. A part has a categorical side (integer codes), a numeric side (columns),
or both (``Age:Tissue``, their products).

*Coding.* A term's columns are those of R's ``model.matrix``: a factor of an interaction is coded by
its levels without the first one where the term without that factor is in the formula, too (``b`` in
``a + a:b``), and by all levels otherwise. For a purely categorical term this is again one factor:
all combinations that contain such a first level have zeros in every column, are told apart by
nothing, and make up one level together (code 0). Together with the constant, the indicators of
that factor's levels span the same space as R's columns, and levels that no sample has never exist.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxvp.design.fixed import label
from jaxvp.design.transforms import evaluate
from jaxvp.design.variables import DesignError, is_missing, kind_of, select, to_factor
from jaxvp.formula import Call, Expression, Formula, Variable, names_in
from jaxvp.formula.calls import CATEGORICAL

REFERENCE, MISSING = 0, -1  # codes that are no level of their own


class Part(NamedTuple):
    """A term of a formula as columns; `codes` or `numbers` may be None, not both."""

    name: str
    variables: tuple[str, ...]
    """columns of the metadata that it reads"""
    rows: Bool[np.ndarray, " n"]
    """samples that have a value of all of them"""
    codes: Int[np.ndarray, " n"] | None
    """0 for what the coding leaves without a column, levels from 1; -1 where missing"""
    numbers: Float[np.ndarray, "n m"] | None
    """NaN where missing"""


class Factor(NamedTuple):
    """What a term multiplies: a categorical variable, or a numeric expression."""

    label: str
    variable: str | None
    expression: Expression | None


Term = tuple[Factor, ...]


def read_parts(formula: Formula, metadata: pd.DataFrame, fixed_only: bool = False) -> list[Part]:
    """Every term of a formula, main effects first, else in the order of the formula.

    Parameters
    ----------
    formula, metadata
        As for `jaxvp.design.build`. Missing values stay, each term has its own.
    fixed_only
        Leave out the random terms: what is left is the fixed part.

    Raises
    ------
    DesignError
        If a variable is unknown, has no value at all, or a term cannot be computed.
    """
    table = select(metadata, formula.variables)
    present = {name: ~is_missing(column) for name, column in table.items()}
    for name, rows in present.items():
        if not rows.any():
            raise DesignError(
                f"`{name}` is missing in all {len(rows)} samples: leave it out of the formula"
            )
    terms = _terms(formula, table, fixed_only=fixed_only)
    return [
        _part(name, term, set(terms.keys()), table, present, metadata.index)
        for name, term in _ordered(terms, formula.variables)
    ]


def _terms(
    formula: Formula, table: dict[str, pd.Series], fixed_only: bool
) -> dict[frozenset[str], tuple[str, Term]]:
    """Terms with their names, by the labels of their factors; of equal ones the first."""
    found: dict[frozenset[str], tuple[str, Term]] = {}

    def add(name: str, term: Term) -> None:
        found.setdefault(frozenset(factor.label for factor in term), (name, term))

    for fixed in formula.terms:
        add(":".join(map(label, fixed)), tuple(_factor(factor, table) for factor in fixed))
    for random in () if fixed_only else formula.random:
        add(random.name, tuple(Factor(name, name, None) for name in random.group))
        for slope in random.slopes:
            for fixed in Formula.parse(f"~ {slope}").terms:
                add(":".join(map(label, fixed)), tuple(_factor(factor, table) for factor in fixed))
    return found


def _factor(expression: Expression, table: dict[str, pd.Series]) -> Factor:
    if isinstance(expression, Call) and expression.function in CATEGORICAL:
        (name,) = names_in(expression)
        return Factor(label(expression), name, None)
    if isinstance(expression, Variable) and kind_of(table[expression.name]) == "categorical":
        return Factor(expression.name, expression.name, None)
    return Factor(label(expression), None, expression)


def _ordered(
    terms: dict[frozenset[str], tuple[str, Term]], variables: tuple[str, ...]
) -> list[tuple[str, Term]]:
    def place(named: tuple[str, Term]) -> tuple[int, int]:
        term = named[1]
        return len(term), max(variables.index(name) for name in _reads(term))

    return sorted(terms.values(), key=place)


def _reads(term: Term) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for factor in term:
        if factor.variable is not None:
            names.setdefault(factor.variable)
        elif factor.expression is not None:
            names.update(dict.fromkeys(names_in(factor.expression)))
    return tuple(names)


def _part(
    name: str,
    term: Term,
    others: set[frozenset[str]],
    table: dict[str, pd.Series],
    present: dict[str, Bool[np.ndarray, " n"]],
    samples: pd.Index,
) -> Part:
    variables = _reads(term)
    rows = np.logical_and.reduce([present[variable] for variable in variables])
    if not rows.any():
        both = " and ".join(f"`{variable}`" for variable in variables)
        raise DesignError(f"no sample has a value of {both}: leave `{name}` out of the formula")
    labels = frozenset(factor.label for factor in term)
    codes, numbers = None, None
    values = {variable: table[variable].loc[rows] for variable in variables}
    for factor in term:
        try:
            if factor.variable is not None:
                contrasts = (labels - {factor.label}) in others
                column = table[factor.variable].loc[present[factor.variable]]
                own = np.zeros(len(rows), dtype=np.int64)
                own[present[factor.variable]] = to_factor(column)[0] + (0 if contrasts else 1)
                codes = own[rows] if codes is None else _combined(codes, own[rows])
            elif factor.expression is not None:
                computed = evaluate(factor.expression, values, samples[rows])
                columns = _columns(computed, int(rows.sum()))
                numbers = columns if numbers is None else _products(numbers, columns)
        except DesignError as error:
            raise DesignError(f"the term `{name}`: {error}") from None
    return Part(
        name,
        variables,
        rows,
        None if codes is None else _everywhere(codes, rows, MISSING),
        None if numbers is None else _everywhere(numbers, rows, np.nan),
    )


def _combined(
    one: Int[np.ndarray, " rows"], other: Int[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """The codes of the combinations that are there; one with a reference level in it is 0."""
    pairs = np.where((one > 0) & (other > 0), one * (other.max() + 1) + other, REFERENCE)
    codes = np.unique(pairs, return_inverse=True)[1]
    return codes if (pairs == REFERENCE).any() else codes + 1


def _columns(values: object, n: int) -> Float[np.ndarray, "n m"]:
    """One column a number, or what formulaic makes of `poly` and `bs`: an array or a mapping."""
    if isinstance(values, dict):
        values = np.column_stack([np.asarray(column) for column in values.values()])
    columns = np.asarray(values, dtype=np.float64)
    if columns.ndim == 0:  # I(x - x) is never so, a formula of numbers alone is no formula
        columns = np.full(n, float(columns))
    return columns.reshape(n, -1)


def _products(
    one: Float[np.ndarray, "n k"], other: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "n km"]:
    pairs = product(range(one.shape[1]), range(other.shape[1]))
    return np.column_stack([one[:, i] * other[:, j] for i, j in pairs])


def _everywhere(
    values: np.ndarray, rows: Bool[np.ndarray, " n"], missing: int | float
) -> np.ndarray:
    full = np.full((len(rows), *values.shape[1:]), missing, dtype=values.dtype)
    full[rows] = values
    return full
