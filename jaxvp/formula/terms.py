"""The algebra of formulas: sums of fixed terms, crossed, nested and removed, and random terms."""

import re
from dataclasses import dataclass, field

from .calls import read_call
from .expressions import Expression, Variable, names_in, term_text
from .tokens import Tokens

# Of the result, and of all that is crossed on the way to it.
MAX_TERMS, MAX_CROSSED, MAX_GROUP = 1_000, 50_000, 20

Term = tuple[Expression, ...]


@dataclass(frozen=True)
class RandomTerm:
    """A random term: what varies (left of the bar) between which groups (right of it)."""

    text: str
    """canonical, ``(1|a:b)``"""
    group: tuple[str, ...]
    """the variables whose interaction is the grouping factor"""
    name: str
    """name of the component: ``g``, ``a:b``; the two of ``(1|a/b)`` are ``a`` and ``b:a``"""
    slopes: tuple[str, ...]
    """terms left of the bar besides the intercept; () for a random intercept"""
    intercept: bool
    correlated: bool
    """False for ``||``"""
    reads: tuple[str, ...]
    """every variable in it, each once"""


@dataclass
class Sum:
    """Terms under construction. The key of a term is the set of its factors: b:a is a:b."""

    terms: dict[frozenset[str], Term] = field(default_factory=dict)
    intercept: bool | None = None  # None: nothing was said about it
    random: list[RandomTerm] = field(default_factory=list)

    @classmethod
    def of(cls, *terms: Term) -> "Sum":
        """These terms; of equal ones the first."""
        result = cls()
        for term in terms:
            result.terms.setdefault(frozenset(factor.text for factor in term), term)
        return result


def read_sum(tokens: Tokens) -> Sum:
    """Terms that are added and removed."""
    result = Sum()
    sign = tokens.take("+", "-")
    while True:
        position = tokens.position
        operand = _product(tokens)
        if sign == "-":
            _remove(tokens, result, operand, position)
        else:
            result.terms |= {k: v for k, v in operand.terms.items() if k not in result.terms}
            result.random += operand.random
            if operand.intercept is not None:
                result.intercept = operand.intercept
        _limit(tokens, len(result.terms), position)
        sign = tokens.take("+", "-")
        if not sign:
            return result


def _remove(tokens: Tokens, result: Sum, operand: Sum, position: int) -> None:
    if operand.random:
        tokens.error("a random term cannot be removed: leave it out", position)
    for key, term in operand.terms.items():
        if result.terms.pop(key, None) is None:
            tokens.error(f"`{term_text(term)[:40]}` is not there to be removed", position)
    if operand.intercept is not None:
        result.intercept = not operand.intercept


def _product(tokens: Tokens) -> Sum:
    position = tokens.position
    left = _cross(tokens)
    while symbol := tokens.take("*", "/"):
        _check_plain(tokens, left, position)
        at = tokens.position
        right = _cross(tokens)
        if symbol == "*":
            crossed = _crossed(tokens, left, right, at)
            left = Sum.of(*left.terms.values(), *right.terms.values(), *crossed.terms.values())
        else:  # right within every combination of all that stands left
            crossed = _crossed(tokens, Sum.of(_joined(*left.terms.values())), right, at)
            left = Sum.of(*left.terms.values(), *crossed.terms.values())
    return left


def _cross(tokens: Tokens) -> Sum:
    position = tokens.position
    left = _power(tokens)
    while tokens.take(":"):
        _check_plain(tokens, left, position)
        at = tokens.position
        left = _crossed(tokens, left, _power(tokens), at)
    return left


def _power(tokens: Tokens) -> Sum:
    """(a+b+c)^2: all terms crossed with each other, up to two at a time."""
    position = tokens.position
    base = _primary(tokens)
    symbol = tokens.take("^", "**")
    if not symbol:
        return base
    _check_plain(tokens, base, position)
    at, exponent = tokens.position, tokens.advance()
    if not re.fullmatch("[1-9][0-9]?", exponent):
        tokens.error(f"after `{symbol}` stands a whole number from 1 to 99", at)
    if len(base.terms) == 1:
        term = term_text(*base.terms.values())
        tokens.error(
            f"`{symbol}` crosses terms and is no power here: write I({term}^{exponent}), "
            f"or only {term}",
            position,
        )
    result = base
    for _ in range(int(exponent) - 1):
        crossed = _crossed(tokens, result, base, at)
        if crossed.terms.keys() == result.terms.keys():
            break
        result = crossed
    return result


def _crossed(tokens: Tokens, left: Sum, right: Sum, position: int) -> Sum:
    """Every term of the one with every term of the other."""
    _check_plain(tokens, right, position)
    tokens.crossed += len(left.terms) * len(right.terms)  # before the work is done
    if tokens.crossed > MAX_CROSSED:
        tokens.error("this gives too many interactions", position)
    result = Sum.of(
        *(_joined(one, other) for one in left.terms.values() for other in right.terms.values())
    )
    _limit(tokens, len(result.terms), position)
    return result


def _joined(*terms: Term) -> Term:
    """All factors of these terms, each once."""
    return tuple({factor.text: factor for term in terms for factor in term}.values())


def _check_plain(tokens: Tokens, operand: Sum, position: int) -> None:
    if operand.random:
        tokens.error("a random term can only be added", position)
    if operand.intercept is not None:
        tokens.error("0 and 1 can only be added or removed; for numbers use I(2 * x)", position)


def _limit(tokens: Tokens, terms: int, position: int) -> None:
    if terms > MAX_TERMS:
        tokens.error(f"this gives more than {MAX_TERMS} terms", position)


def _primary(tokens: Tokens) -> Sum:
    if tokens.peek("("):
        opened = tokens.open()
        inner = read_sum(tokens)
        if tokens.peek("|", "||"):
            inner = Sum(random=_random_terms(tokens, inner, opened))
        tokens.close(opened)
        return inner
    position = tokens.position
    if tokens.kind == "number":
        text = tokens.advance()
        if text not in ("0", "1"):
            tokens.error(f"`{text[:40]}` is no term: write 0 or 1, or I(2 * x)", position)
        return Sum(intercept=text == "1")
    factor = read_call(tokens) if tokens.at_call else Variable(tokens.variable("a variable"))
    if not any(names_in(factor)):
        tokens.error(f"`{factor.text[:40]}` reads no variable", position)
    return Sum.of((factor,))


def _random_terms(tokens: Tokens, left: Sum, opened: int) -> list[RandomTerm]:
    """What follows the left side of a bar; ``(1|a/b)`` is two terms."""
    if left.random:
        tokens.error("a random term inside a random term", opened)
    bar = tokens.take("|", "||")
    intercept, terms = left.intercept is not False, tuple(left.terms.values())
    if not intercept and not terms:
        tokens.error("nothing varies here: left of the bar stands 1 or a variable", opened)
    position, groups = tokens.position, [_group(tokens)]
    while tokens.take("/"):
        groups.append((*_group(tokens), *groups[-1]))
        _check_group(tokens, groups[-1], position)
    if not tokens.peek(")") and not tokens.at_end:
        tokens.expected("`:`, `/` or `)` right of the bar, as in (1|a) + (1|b) + (1|a:b)")
    _check_group(tokens, groups[-1], position)

    slopes = tuple(map(term_text, terms))
    varies = [name for term in terms for factor in term for name in names_in(factor)]
    bar = bar if slopes else "|"  # nothing to correlate
    side = " + ".join(["1" if intercept else "0", *slopes])
    return [
        RandomTerm(
            text=f"({side}{bar}{':'.join(Variable(name).text for name in group)})",
            group=group,
            name=":".join(group),
            slopes=slopes,
            intercept=intercept,
            correlated=bar == "|",
            reads=tuple(dict.fromkeys([*varies, *group])),
        )
        for group in groups
    ]


def _check_group(tokens: Tokens, group: tuple[str, ...], position: int) -> None:
    if len(group) > MAX_GROUP:
        tokens.error(f"more than {MAX_GROUP} variables in a grouping factor", position)
    if len(set(group)) < len(group):
        tokens.error("a grouping variable is crossed with itself or nested in itself", position)


def _group(tokens: Tokens) -> tuple[str, ...]:
    names: list[str] = []
    while not names or tokens.take(":"):
        if tokens.at_call:
            tokens.error("right of the bar stand variables, which are categories there anyway")
        names.append(tokens.variable("a grouping variable"))
    return tuple(names)
