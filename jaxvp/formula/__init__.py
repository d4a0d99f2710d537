"""The grammar of model formulas: text -> `Formula`. It knows no data and evaluates nothing.

A formula such as ``~ Age + scale(BMI) + (1|Individual) + (1|Site/Plate)`` comes from config files
and web forms, so a small recursive-descent parser of its own reads it: what it does not know it
refuses, with the position and a remedy, and no text ever reaches the evaluation of Python or of
formulaic. The result is plain data: fixed terms are tuples of expression trees, random terms are
`RandomTerm` tuples.

Grammar, loosest first, R's precedence (``sum`` to ``group`` in `terms`, the rest in `calls`)::

    formula    = "~" sum
    sum        = [sign] product { ("+" | "-") product }       0 and -1: no intercept
    product    = cross { ("*" | "/") cross }                 a*b = a + b + a:b, a/b = a + a:b
    cross      = power { ":" power }
    power      = primary { ("^" | "**") integer }            (a+b)^2 = a + b + a:b
    primary    = name | call | "0" | "1" | "(" sum ")" | "(" sum ("|" | "||") groups ")"
    groups     = group { "/" group }                         a/b: a and b:a
    group      = name { ":" name }
    call       = function "(" arithmetic { "," option } ")"
    arithmetic = + - * / ^ ** and parentheses over numbers, names and calls
    name       = letters, digits, "_" and "." (as in R), or anything `in backticks`

Fixed terms are ordered as R and formulaic order them: main effects first, then by degree.
"""

from dataclasses import dataclass

from .expressions import Call, Expression, Number, Variable, names_in, term_text
from .terms import RandomTerm, read_sum
from .tokens import FormulaError, Tokens

__all__ = [
    "Call",
    "Expression",
    "Formula",
    "FormulaError",
    "Number",
    "RandomTerm",
    "Variable",
    "names_in",
    "term_text",
]


@dataclass(frozen=True)
class Formula:
    """A parsed formula; made by `Formula.parse`."""

    text: str
    """as the user wrote it"""
    fixed: str
    """the fixed part in formulaic's syntax, ``1 + Age + scale(BMI)``"""
    random: tuple[RandomTerm, ...]
    variables: tuple[str, ...]
    """every metadata column it reads, in order of appearance"""
    intercept: bool
    terms: tuple[tuple[Expression, ...], ...]
    """the fixed terms without the intercept, each as the factors whose product it is"""

    @classmethod
    def parse(cls, text: object) -> "Formula":
        """Read a formula.

        Parameters
        ----------
        text : str
            ``~`` and the right-hand side. There is no response: every gene is it in turn.

        Returns
        -------
        Formula

        Raises
        ------
        FormulaError
            If the text is not a formula. The message shows where, and what to write instead.

        Examples
        --------
        >>> Formula.parse("~ Age*Sex + (1|Site/Plate)").fixed
        '1 + Age + Sex + Age:Sex'
        """
        if not isinstance(text, str):
            raise FormulaError(
                f"a formula is text such as '~ Age + (1|Individual)', not {type(text).__name__}"
            )
        tokens = Tokens(text)
        _check_tilde(tokens)
        result = read_sum(tokens)
        if tokens.peek("|", "||"):
            tokens.error("a random term stands in parentheses: (1|Individual)")
        if not tokens.at_end:
            tokens.expected("an operator")

        intercept = result.intercept is not False
        terms = tuple(sorted(result.terms.values(), key=len))  # stable: by degree, then as written
        if not (terms or intercept or result.random):
            raise FormulaError(f"the formula '{text}' has no term at all: nothing to fit")
        # A variable may have been removed again by `-`.
        reads = {name for term in terms for factor in term for name in names_in(factor)}
        reads.update(*(term.reads for term in result.random))
        return cls(
            text=text,
            fixed=" + ".join(["1" if intercept else "0", *map(term_text, terms)]),
            random=tuple(result.random),
            variables=tuple(name for name in tokens.variables if name in reads),
            intercept=intercept,
            terms=terms,
        )


def _check_tilde(tokens: Tokens) -> None:
    """Read the `~` that opens a formula; what stands before it is refused."""
    if tokens.at_end:
        raise FormulaError("the formula is empty: write for example '~ Age + (1|Individual)'")
    tildes = tokens.positions("~")
    if not tildes:
        tokens.error("a formula starts with `~`: put it first")
    if len(tildes) > 1:
        tokens.error("a formula has one `~`", tildes[1])
    if not tokens.take("~"):
        response = tokens.text[: tildes[0]].strip()
        tokens.error(
            f"the formula has a response, `{response[:40]}`; every gene is the response in turn: "
            "leave out what stands before `~`",
            tildes[0],
        )
    if tokens.at_end:
        raise FormulaError("nothing follows the `~`: write for example '~ Age + (1|Individual)'")
