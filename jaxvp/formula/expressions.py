"""What a fixed term is made of: variables, numbers and calls, as plain data.

Each expression knows its canonical text, written as Python's `ast.unparse` writes it and therefore
as formulaic names its columns: ``I(z^2)`` and ``I( z**2 )`` are both ``I(z ** 2)``.
"""

import keyword
from collections.abc import Iterator
from dataclasses import dataclass

# How tightly operators bind; whatever is no operator binds tightest.
LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 4}
SIGN, ATOM = 3, 5


@dataclass(frozen=True)
class Variable:
    """A column of the metadata."""

    name: str

    @property
    def text(self) -> str:
        """The name, in backticks unless it is a plain one."""
        plain = self.name.isidentifier() and not keyword.iskeyword(self.name)
        return self.name if plain else f"`{self.name}`"


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float
    text: str


@dataclass(frozen=True)
class Call:
    """A listed function or an operator (``-`` with one argument is the sign)."""

    function: str
    arguments: tuple["Expression", ...]
    text: str
    options: tuple[tuple[str, int | bool], ...] = ()


Expression = Variable | Number | Call


def names_in(expression: Expression) -> Iterator[str]:
    """The variables that an expression reads, from left to right."""
    if isinstance(expression, Variable):
        yield expression.name
    elif isinstance(expression, Call):
        for argument in expression.arguments:
            yield from names_in(argument)


def term_text(term: tuple[Expression, ...]) -> str:
    """A fixed term as it stands in a formula, ``Age:Tissue``."""
    return ":".join(factor.text for factor in term)


def operation(symbol: str, *operands: Expression) -> Call:
    """An operator and its operands, with as few parentheses as the text needs."""
    if len(operands) == 1:
        return Call(symbol, operands, f"-{_shown(operands[0], SIGN)}")
    left, right = operands
    level = LEVELS[symbol]
    # The power associates to the right, the others to the left.
    left_level, right_level = (level + 1, level) if symbol == "**" else (level, level + 1)
    return Call(
        symbol, operands, f"{_shown(left, left_level)} {symbol} {_shown(right, right_level)}"
    )


def _shown(operand: Expression, level: int) -> str:
    return operand.text if _level(operand) >= level else f"({operand.text})"


def _level(expression: Expression) -> int:
    if not isinstance(expression, Call):
        return ATOM
    sign = expression.function == "-" and len(expression.arguments) == 1
    return SIGN if sign else LEVELS.get(expression.function, ATOM)
