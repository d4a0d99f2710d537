"""The fixed part: the terms of a formula -> columns of X, coded and named by formulaic.

Every factor of a term is computed here (`transforms`) or made categorical, and handed to formulaic
under its canonical text as a value to be looked up. formulaic crosses the factors, codes the
categorical ones by treatment contrasts on their first level (fully where the terms before do not
span them already) and names the columns; nothing is left for it to evaluate.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.formula import Call, Expression, Formula, Variable, names_in
from jaxvp.formula.calls import CATEGORICAL

from .rank import dependent_columns
from .transforms import States, evaluate
from .variables import DesignError, Factor, Names, kind_of, to_factor

# formulaic evaluates this as a literal, and knows factors by their text only: not "1", which may
# well be the name of a column.
INTERCEPT = "+1"
# Before such a level; of Unicode's private characters, which no name has.
SHIELD = "\ue0f8"
# Of a fixed column: its square, and the square of that over all samples, are ordinary numbers.
LARGEST = 1e60


class FixedPart(NamedTuple):
    """Fixed columns with their names, the terms they belong to, and the categorical factors."""

    X: Float[np.ndarray, "n p"]
    columns: Names
    terms: Names
    term_of_column: tuple[int, ...]
    factors: dict[str, Factor]
    """by their names in a formula, ``Tissue`` or ``C(Tissue)``"""
    states: States
    """of the transforms that look at all samples"""


def build_fixed(formula: Formula, table: dict[str, pd.Series], samples: pd.Index) -> FixedPart:
    """Compute and code the fixed part of a formula.

    Parameters
    ----------
    formula
        The parsed formula.
    table
        Its variables, without missing values.
    samples
        Names of the samples, for messages.

    Raises
    ------
    DesignError
        If a term cannot be computed, says nothing (one level, a constant, a combination of others)
        or has as many levels as there are samples; if there are as many columns as samples.
    """
    X, columns, owner, factors, states = encode(formula, table, samples, "the fixed term {}")
    dependent = dependent_columns(X, columns, formula.intercept)
    if dependent:
        raise DesignError(explain(dependent))
    return FixedPart(X, columns, Names(map(_term_label, formula.terms)), owner, factors, states)


def encode(
    formula: Formula, table: dict[str, pd.Series], samples: pd.Index, what: str
) -> tuple[Float[np.ndarray, "n p"], Names, tuple[int, ...], dict[str, Factor], States]:
    """Columns of a fixed part, their names, their terms (-1: intercept), its categorical factors.

    The last are the states of its transforms.
    ``what``, with braces for a term's name, opens the messages of what cannot be computed.
    """
    n = len(samples)
    values: dict[str, Any] = {}
    factors: dict[str, Factor] = {}
    states: States = {}
    meaning: dict[str, Expression | None] = {INTERCEPT: None}
    for expression in dict.fromkeys(factor for term in formula.terms for factor in term):
        name = label(expression)
        if meaning.setdefault(name, expression) != expression:
            raise DesignError(f"two different things are named `{name}`: rename the column")
        try:
            variable = _categorical(expression, table)
            if variable is None:
                values[name] = evaluate(expression, table, samples, states)
            else:
                factors[name] = _levels(variable, table)
                values[name] = pd.Series(pd.Categorical.from_codes(*factors[name]))
        except DesignError as error:
            raise DesignError(f"{what.replace('{}', f'`{name}`')}: {error}") from None

    # Before anything is allocated: a*b*c of many levels would be many times the memory.
    sizes = {name: _least_columns(value) for name, value in values.items()}
    least = sum(math.prod(sizes[label(factor)] for factor in term) for term in formula.terms)
    _check_count(formula.intercept + least, n)
    X, columns, owner = materialize(formula, values, n)
    _check_count(len(columns), n)
    _check_sizes(X, columns)
    return X, columns, owner, factors, states


def label(expression: Expression) -> str:
    """What formulaic calls a factor: a variable goes without its backticks."""
    return expression.name if isinstance(expression, Variable) else expression.text


def _term_label(term: tuple[Expression, ...]) -> str:
    return ":".join(map(label, term))


def _categorical(expression: Expression, table: dict[str, pd.Series]) -> str | None:
    """The variable, where an expression is one that is or is made categorical."""
    if isinstance(expression, Call) and expression.function in CATEGORICAL:
        return variable_of(expression)
    if isinstance(expression, Variable) and kind_of(table[expression.name]) == "categorical":
        return expression.name
    return None


def variable_of(expression: Expression) -> str:
    """The variable of a categorical factor, ``Tissue`` or ``C(Tissue)``."""
    (name,) = names_in(expression)
    return name


def _levels(variable: str, table: dict[str, pd.Series]) -> Factor:
    codes, levels = to_factor(table[variable])
    if len(levels) == 1:
        raise DesignError(
            f"it has one level, '{levels[0]}', in all {len(codes)} samples: leave it out"
        )
    if len(levels) == len(codes):
        raise DesignError(
            f"it has a level for each of the {len(codes)} samples; if these are numbers, use them "
            "as numbers (pd.to_numeric)"
        )
    return codes, levels


def _least_columns(value: Any) -> int:
    if isinstance(value, pd.Series):
        return len(value.cat.categories) - 1
    return len(value) if isinstance(value, dict) else math.prod(value.shape[1:])


def _check_count(columns: int, n: int) -> None:
    if columns >= n:
        raise DesignError(
            f"the fixed part has {columns} columns and there are {n} samples, fewer columns are "
            "needed: leave out terms, or make variables with many levels random, (1|g)"
        )


def _check_sizes(X: Float[np.ndarray, "n p"], columns: Names) -> None:
    """Columns are squared and multiplied: there are units in which that is no number any more."""
    size = np.abs(X).max(axis=0, initial=0)
    for name, largest in zip(columns, size, strict=True):
        if not largest <= LARGEST or 0 < largest < 1 / LARGEST:
            what = "are not finite" if not np.isfinite(largest) else f"reach {largest:.1e}"
            raise DesignError(
                f"the values of `{name}` {what}: give its variable in a unit that makes them "
                f"smaller than {LARGEST:.0e} and not all smaller than {1 / LARGEST:.0e}"
            )


def materialize(
    formula: Formula, values: dict[str, Any], n: int
) -> tuple[Float[np.ndarray, "n p"], Names, tuple[int, ...]]:
    """X, the names of its columns, and for each the number of its term (-1: the intercept)."""
    from formulaic import SimpleFormula
    from formulaic.materializers import PandasMaterializer
    from formulaic.parser.types import Factor as Lookup
    from formulaic.parser.types import Term

    terms: list[str | Term] = []
    if formula.intercept:
        terms.append(Term([Lookup(INTERCEPT, eval_method="literal")]))
    for term in formula.terms:
        terms.append(Term([Lookup(label(factor), eval_method="lookup") for factor in term]))
    context = {name: _shielded(value) for name, value in values.items()}
    materializer = PandasMaterializer(pd.DataFrame(index=pd.RangeIndex(n)), context=context)
    matrix: Any = materializer.get_model_matrix(
        SimpleFormula(terms, _ordering="none"), output="numpy", na_action="ignore"
    )
    first = -1 if formula.intercept else 0
    blocks = [(first + i, part.columns) for i, part in enumerate(matrix.model_spec.structure)]
    owner = tuple(i for i, columns in blocks for _ in columns)
    names = Names(str(name).replace(SHIELD, "") for _, columns in blocks for name in columns)
    return np.asarray(matrix, dtype=np.float64).reshape(n, len(names)), names, owner


def _shielded(value: Any) -> Any:
    """formulaic leaves out levels whose names begin with ``__``: they are its own, it thinks."""
    if not isinstance(value, pd.Series):
        return value
    return value.cat.rename_categories(lambda level: SHIELD * level.startswith("__") + level)


def explain(dependent: dict[str, list[str]]) -> str:
    """What `dependent_columns` found, in words."""

    def reason(column: str, others: list[str]) -> str:
        if not others:
            return f"`{column}` is zero in all samples (no sample has this combination?)"
        if others == ["Intercept"]:
            return f"`{column}` is the same in all samples"
        return f"`{column}` is a combination of {', '.join(f'`{other}`' for other in others[:5])}"

    reasons = [reason(column, others) for column, others in dependent.items()]
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return f"the fixed part is rank-deficient: {'; '.join(reasons[:5])}{more}. Leave out a term"
