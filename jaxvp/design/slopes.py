"""Random terms as components: what varies (left of the bar) between which groups (right of it).

A component is one column left of a bar with its grouping factor: the intercept of ``(1|g)``, the
slope of ``(0 + x|g)``, the effect of one level of ``f`` in ``(f + 0|g)``. Its column of samples is
the *multiplier* of the group's coefficient. The components of one correlated term are a *block*:
their coefficients have a joint covariance. ``||`` makes a block of every term left of it, as in
lme4.

Columns left of a bar are coded as formulaic codes fixed ones and named as R does: ``TissueB``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxvp.formula import Formula, RandomTerm, names_in

from .fixed import encode
from .rank import dependent_columns
from .variables import DesignError, Factor

INTERCEPT = "(Intercept)"
Multiplier = Float[np.ndarray, " n"] | None  # None: one, everywhere


class RandomPart(NamedTuple):
    """Components in formula order: codes, level names, names, multipliers, coefficients; blocks."""

    codes: tuple[Int[np.ndarray, " n"], ...]
    levels: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    multipliers: tuple[Multiplier, ...]
    coefficients: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    terms: tuple[RandomTerm, ...]
    """where each component comes from"""
    slope_levels: tuple[tuple[str, tuple[str, ...]], ...]
    """factors left of a bar, with their levels"""


def build_components(
    formula: Formula, groups: list[Factor], table: dict[str, pd.Series], samples: pd.Index
) -> RandomPart:
    """Components of all random terms.

    Parameters
    ----------
    formula
        The parsed formula.
    groups
        Grouping factor of each of its random terms.
    table
        Its variables, without missing values.
    samples
        Names of the samples, for messages.

    Raises
    ------
    DesignError
        If a slope cannot be computed, is constant within every group, has a level without samples
        or is a combination of others; if a term has as many coefficients as there are samples; if
        two terms have the same component.
    """
    part = RandomPart((), (), (), (), (), (), (), ())
    factors: dict[str, Factor] = {}
    for term, group in zip(formula.random, groups, strict=True):
        for columns, names in _blocks(term, table, samples, group, factors):
            part = _added(part, term, group, columns, names)
    _check_twice(formula)
    known = ((name, tuple(levels)) for name, (_, levels) in factors.items())
    return part._replace(slope_levels=tuple(known))


def _added(
    part: RandomPart, term: RandomTerm, group: Factor, columns: list[Multiplier], names: list[str]
) -> RandomPart:
    count, start = len(names), len(part.names)
    return RandomPart(
        (*part.codes, *[group[0]] * count),
        (*part.levels, *[group[1]] * count),
        (*part.names, *(component_name(term.name, name) for name in names)),
        (*part.multipliers, *columns),
        (*part.coefficients, *names),
        (*part.blocks, tuple(range(start, start + count))),
        (*part.terms, *[term] * count),
        (),
    )


def component_name(group: str, coefficient: str) -> str:
    """``Subject`` for an intercept, ``Subject.Days`` for a slope."""
    return group if coefficient == INTERCEPT else f"{group}.{coefficient}"


def theta_names(
    names: tuple[str, ...], coefficients: tuple[str, ...], blocks: tuple[tuple[int, ...], ...]
) -> tuple[str, ...]:
    """Names of theta, a block's lower triangle column by column, as lme4 has them.

    A block of one component is called by its name.
    """
    found = []
    for block in blocks:
        if len(block) == 1:
            found.append(names[block[0]])
            continue
        group = group_of(names[block[0]], coefficients[block[0]])
        for i, column in enumerate(block):
            found.append(f"{group}.{coefficients[column]}")
            found += [
                f"{group}.{coefficients[row]}.{coefficients[column]}" for row in block[i + 1 :]
            ]
    return tuple(found)


def group_of(name: str, coefficient: str) -> str:
    """The grouping factor of a component."""
    return name if coefficient == INTERCEPT else name[: -len(coefficient) - 1]


def side(term: RandomTerm) -> Formula:
    """What stands left of the bar, as a fixed part."""
    return Formula.parse(f"~ {' + '.join(['1' if term.intercept else '0', *term.slopes])}")


def parts(term: RandomTerm) -> list[Formula]:
    """The correlated parts of a term: one, or with ``||`` one a term left of the bar."""
    if term.correlated:
        return [side(term)]
    return [Formula.parse("~ 1")] * term.intercept + [
        Formula.parse(f"~ 0 + {slope}") for slope in term.slopes
    ]


def r_name(column: str) -> str:
    """``Tissue[T.B]`` as R writes it, ``TissueB``."""
    return INTERCEPT if column == "Intercept" else re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", column)


def _blocks(
    term: RandomTerm,
    table: dict[str, pd.Series],
    samples: pd.Index,
    group: Factor,
    factors: dict[str, Factor],
) -> list[tuple[list[Multiplier], list[str]]]:
    if not term.slopes:
        return [([None], [INTERCEPT])]
    _check_levels(term, table)
    found = []
    for part in parts(term):
        if not part.terms:
            found.append(([None], [INTERCEPT]))
            continue
        X, columns, owner, own, _ = encode(part, table, samples, "the slope {} of " + term.text)
        factors |= own
        _check_columns(term, part, X, columns, owner, group)
        multipliers = [
            None if name == "Intercept" else np.ascontiguousarray(X[:, j])
            for j, name in enumerate(columns)
        ]
        found.append((multipliers, [r_name(name) for name in columns]))
    count = max(len(names) for _, names in found)
    coefficients = len(group[1]) * count
    if coefficients >= len(samples):
        raise DesignError(
            f"the random term {term.text} has {coefficients} random effects ({count} in each of "
            f"{len(group[1])} levels of `{term.name}`), not fewer than the {len(samples)} samples: "
            "they cannot be told from the residual. Leave a slope out"
        )
    return found


def _check_levels(term: RandomTerm, table: dict[str, pd.Series]) -> None:
    """A level that no sample has would be a component without data."""
    for slope in term.slopes:
        for product in Formula.parse(f"~ {slope}").terms:
            for name in (name for factor in product for name in names_in(factor)):
                column = table[name]
                if not isinstance(column.dtype, pd.CategoricalDtype):
                    continue
                lost = column.cat.categories.difference(pd.Index(column.unique()))
                if len(lost):
                    shown = ", ".join(f"'{level}'" for level in lost[:5])
                    raise DesignError(
                        f"`{name}`, a slope of {term.text}, has levels that no sample has in any "
                        f"level of `{term.name}`: {shown}. Remove them: "
                        f"metadata[{name!r}].cat.remove_unused_categories()"
                    )


def _check_columns(
    term: RandomTerm,
    part: Formula,
    X: Float[np.ndarray, "n c"],
    columns: tuple[str, ...],
    owner: tuple[int, ...],
    group: Factor,
) -> None:
    empty = [r_name(name) for name, column in zip(columns, X.T, strict=True) if not column.any()]
    if empty:
        raise DesignError(
            f"`{empty[0]}`, a slope of {term.text}, is zero in all samples: no level of "
            f"`{term.name}` has it (a combination that does not occur?). Leave it out"
        )
    for number, slope in enumerate(part.fixed.split(" + ")[1:]):
        own = X[:, [j for j, owned in enumerate(owner) if owned == number]]
        if _constant_within(own, group):
            raise DesignError(
                f"`{slope}` is constant within every level of `{term.name}`, so that it has no "
                f"slope there: in place of {term.text} make it a fixed effect, `{slope}`"
            )
    dependent = dependent_columns(X, columns, part.intercept)
    if dependent:
        name, others = next(iter(dependent.items()))
        listed = ", ".join(f"`{r_name(other)}`" for other in others[:5])
        raise DesignError(
            f"`{r_name(name)}`, a slope of {term.text}, is "
            + (f"a combination of {listed}: leave one of them out" if others else "zero throughout")
        )


def _constant_within(columns: Float[np.ndarray, "n c"], group: Factor) -> bool:
    codes, levels = group
    size = np.abs(columns).max(initial=0.0)
    low = np.full((len(levels), columns.shape[1]), np.inf)
    high = -low
    np.minimum.at(low, codes, columns)
    np.maximum.at(high, codes, columns)
    return bool((high - low).max(initial=0.0) <= 1e-12 * size)


def _check_twice(formula: Formula) -> None:
    """Two terms of one group may not both have the intercept, or the same slope."""
    seen: dict[tuple[frozenset[str], str], RandomTerm] = {}
    for term in formula.random:
        key = frozenset(term.group)
        own = [INTERCEPT] * term.intercept + list(term.slopes)
        for coefficient in own:
            first = seen.setdefault((key, coefficient), term)
            if first is not term:
                what = "a random intercept" if coefficient == INTERCEPT else f"`{coefficient}`"
                raise DesignError(
                    f"the random terms {first.text} and {term.text} both have {what} of "
                    f"`{term.name}`: leave it out of one of them, as in (0 + x|{term.name})"
                )
