"""Functions in a formula, ``scale(log(x + 1))``: the whitelist, their options, arithmetic inside.

Reading a call makes a tree; nothing is computed. `jaxvp.design` gives the names their meaning.
"""

import difflib
import re

from .expressions import Call, Expression, Number, Variable, operation
from .tokens import Tokens

# The options of each function in positional order: bool, or the range of a whole number.
FUNCTIONS: dict[str, dict[str, tuple[int, int] | type[bool]]] = {
    "I": {},
    "log": {},
    "log2": {},
    "log1p": {},
    "sqrt": {},
    "center": {},
    "scale": {"center": bool, "scale": bool},
    "poly": {"degree": (1, 20), "raw": bool},
    "bs": {"df": (1, 100), "degree": (1, 10)},
    "C": {},
    "factor": {},
}
CATEGORICAL = ("C", "factor")
OUTERMOST = (*CATEGORICAL, "poly", "bs")  # what they give is not one column of numbers
BOOLEANS = {"True": True, "TRUE": True, "T": True, "False": False, "FALSE": False, "F": False}


def read_call(tokens: Tokens, nested: bool = False) -> Call:
    """``function(argument, options)``; `nested` inside another one."""
    position, function = tokens.position, tokens.advance()
    if function not in FUNCTIONS:
        bare = function.rsplit(".", 1)[-1]  # np.log
        close = difflib.get_close_matches(bare, FUNCTIONS, n=2)
        maybe = f"; did you mean {' or '.join(close)}?" if close else "."
        listed = ", ".join(FUNCTIONS)
        tokens.error(f"unknown function `{function[:40]}`{maybe} There are {listed}", position)
    if nested and function in OUTERMOST:
        tokens.error(f"{function}() cannot stand inside another function", position)
    if not nested:
        tokens.operations = 0
    opened = tokens.open()
    if function in CATEGORICAL:
        argument = Variable(tokens.variable("the name of a variable"))
    else:
        argument = _arithmetic(tokens)
    options = _options(tokens, function)
    tokens.close(opened)
    values = {name: value for name, value, _ in options}
    if function == "bs" and "df" in values and values["df"] < values.get("degree", 3):
        tokens.error("bs() needs df >= degree (which is 3 unless given)", position)
    shown = ", ".join([argument.text, *(text for _, _, text in options)])
    return Call(function, (argument,), f"{function}({shown})", tuple(values.items()))


def _options(tokens: Tokens, function: str) -> list[tuple[str, int | bool, str]]:
    """Name, value and canonical text of all that follows the first argument."""
    known = FUNCTIONS[function]
    found: dict[str, tuple[str, int | bool, str]] = {}
    while tokens.take(","):
        position, named = tokens.position, tokens.at_option
        name = tokens.advance() if named else next((k for k in known if k not in found), "")
        tokens.take("=")
        if name not in known:
            takes = f"its options are {', '.join(known)}" if known else "it has none"
            hint = "; order the categories in the metadata" if function in CATEGORICAL else ""
            tokens.error(f"{function}() has no such option: {takes}{hint}", position)
        if name in found:
            tokens.error(f"the option {name} is given twice", position)
        value = _value(tokens, name, known[name])
        found[name] = (name, value, f"{name}={value}" if named else str(value))
    return list(found.values())


def _value(tokens: Tokens, name: str, allowed: tuple[int, int] | type[bool]) -> int | bool:
    position, text = tokens.position, tokens.advance()
    if not isinstance(allowed, tuple):
        if text not in BOOLEANS:
            tokens.error(f"{name} is True or False", position)
        return BOOLEANS[text]
    low, high = allowed
    if not (re.fullmatch("[0-9]{1,3}", text) and low <= int(text) <= high):
        tokens.error(f"{name} is a whole number from {low} to {high}", position)
    return int(text)


def _arithmetic(tokens: Tokens) -> Expression:
    left = _product(tokens)
    while symbol := tokens.take("+", "-"):
        tokens.count_operation()
        left = operation(symbol, left, _product(tokens))
    return left


def _product(tokens: Tokens) -> Expression:
    left = _signed(tokens)
    while symbol := tokens.take("*", "/"):
        tokens.count_operation()
        left = operation(symbol, left, _signed(tokens))
    return left


def _signed(tokens: Tokens) -> Expression:
    """A power with its sign: -x^2 is -(x^2), and 2^-x is 2^(-x)."""
    tokens.enter()
    if tokens.take("-"):
        result = operation("-", _signed(tokens))
    else:
        result = _atom(tokens)
        if tokens.take("^", "**"):
            result = operation("**", result, _signed(tokens))
    tokens.leave()
    return result


def _atom(tokens: Tokens) -> Expression:
    if tokens.at_call:
        return read_call(tokens, nested=True)
    if tokens.kind == "number":
        position, text = tokens.position, tokens.advance()
        value = float(text)
        if len(text) > 30 or value == float("inf"):
            tokens.error("this number is too long or too large", position)
        return Number(value, str(int(text)) if text.isdecimal() else repr(value))
    if not tokens.peek("("):
        return Variable(tokens.variable("a variable or a number"))
    opened = tokens.open()
    inner = _arithmetic(tokens)
    tokens.close(opened)
    return inner
