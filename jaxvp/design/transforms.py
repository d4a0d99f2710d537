"""What the functions of a formula compute, once, on the samples of the design.

`scale`, `center`, `poly` and `bs` look at all samples at once. What they find, a mean or knots, is
their state, kept by the text of the call: given it again they compute the same function of other
samples. The tree that `jaxvp.formula` made is walked here; every function in it has its entry in a
table below, and nothing is looked up anywhere else. Those four are formulaic's
(https://github.com/matthewwardrop/formulaic), the others NumPy's.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from jaxvp.formula import Call, Expression, Number, Variable
from jaxvp.warning import warn

from .variables import DesignError, kind_of, to_numbers

Values = np.ndarray | np.generic  # numbers in a formula stay scalars
States = dict[str, dict]  # by the text of a call, what formulaic's transform keeps

OPERATORS: dict[str, Callable] = {
    "+": operator.add,
    "-": lambda *x: operator.sub(*x) if len(x) == 2 else operator.neg(*x),
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}
# The function, where it is defined, and that in words.
ELEMENTWISE: dict[str, tuple[Callable, Callable, str]] = {
    "I": (np.asarray, np.isfinite, "finite"),
    "log": (np.log, lambda x: x > 0, "positive (log1p takes zeros)"),
    "log2": (np.log2, lambda x: x > 0, "positive (log1p takes zeros)"),
    "log1p": (np.log1p, lambda x: x > -1, "above -1"),
    "sqrt": (np.sqrt, lambda x: x >= 0, "zero or more"),
}


def evaluate(
    expression: Expression,
    table: dict[str, pd.Series],
    samples: pd.Index,
    states: States | None = None,
) -> Any:
    """The values of a numeric expression: [n], or what formulaic makes of `poly` and `bs`.

    A call that has a state in `states` uses it, others leave theirs there.

    Raises
    ------
    DesignError
        If a variable is not numeric, or a value not finite or not where a function is defined.
    """
    if isinstance(expression, Number):
        return np.float64(expression.value)  # not Python's: 1 / 0 shall be inf
    if isinstance(expression, Variable):
        result = _numbers(table[expression.name])
    else:
        arguments = [
            evaluate(argument, table, samples, states) for argument in expression.arguments
        ]
        function = expression.function
        with np.errstate(all="ignore"):  # what is not finite is reported below
            if function in OPERATORS:
                result = OPERATORS[function](*arguments)
            elif function in ELEMENTWISE:
                compute, defined, where = ELEMENTWISE[function]
                argument = expression.arguments[0].text
                values = arguments[0]
                _check(defined(values), f"`{argument}` must be {where}", values, samples)
                result = compute(values)
            else:
                return _fitted(expression, {} if states is None else states, *arguments)
    _check(np.isfinite(result), f"`{expression.text}` must be finite", result, samples)
    return result


def _numbers(column: pd.Series) -> np.ndarray:
    kind = kind_of(column)
    if kind == "numeric":
        try:
            return to_numbers(column)
        except (OverflowError, ValueError, TypeError) as error:  # Python's numbers know no limits
            raise DesignError(
                f"`{column.name}` holds values that are no floating-point numbers: {error}"
            ) from None
    what = {
        "categorical": "is categorical: if it holds numbers as text, convert it with pd.to_numeric",
        "date": "holds dates or times: make it a number, such as days since the first",
        "complex": "is complex: take a real number from it",
    }[kind]
    raise DesignError(f"numbers are needed, and `{column.name}` {what}")


def _check(good: Values, what: str, values: Values, samples: pd.Index) -> None:
    bad = np.flatnonzero(np.broadcast_to(np.logical_not(good), len(samples)))
    if bad.size:
        values = np.broadcast_to(values, len(samples))
        raise DesignError(
            f"{what}; in {bad.size} of {len(samples)} samples it is not, the first is "
            f"'{samples[bad[0]]}' with {values[bad[0]]:g}: correct such values or set them missing"
        )


def _fitted(call: Call, states: States, x: np.ndarray) -> Any:
    """Transforms that look at all samples at once."""
    from formulaic.transforms import basis_spline, center, poly, scale

    options: dict[str, Any] = dict(call.options)
    known = call.text in states
    state = states.setdefault(call.text, {})
    if not known:
        _check_varies(call, options.get("degree", 1), np.unique(x).size)
    elif call.function == "bs":
        _check_range(call, state["lower_bound"], state["upper_bound"], x)
        options["extrapolation"] = "extend"
    functions = {"scale": scale, "center": center, "poly": poly, "bs": basis_spline}
    return functions[call.function](x, _state=state, **options)


def _check_range(call: Call, low: float, high: float, x: np.ndarray) -> None:
    """Beyond its ends the last polynomial of a spline goes on, as in R."""
    outside = int(((x < low) | (x > high)).sum())
    if outside:
        warn(
            f"`{call.text}` was fitted from {low:g} to {high:g}, and {outside} of {len(x)} samples "
            "are outside: there it is extrapolated"
        )


def _check_varies(call: Call, degree: int, distinct: int) -> None:
    if call.function == "poly" and distinct <= degree:
        raise DesignError(
            f"degree {degree} needs more than {degree} different values, and "
            f"`{call.arguments[0].text}` has {distinct}"
        )
    if call.function != "center" and distinct == 1:
        raise DesignError(f"`{call.arguments[0].text}` is the same in all samples: leave it out")
