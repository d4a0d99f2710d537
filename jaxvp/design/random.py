"""The random part: grouping factors as integer codes, and what makes one useless."""

from itertools import combinations

import numpy as np
import pandas as pd

from jaxvp.formula import Call, Formula, RandomTerm, Variable, names_in
from jaxvp.formula.calls import CATEGORICAL

from .variables import DesignError, Factor, interaction, kind_of, to_factor


def check_random(formula: Formula) -> None:
    """Check what can be said about the random terms without the data.

    Raises
    ------
    DesignError
        If two random terms are identical, or a grouping factor is also a fixed main effect.
    """
    seen: dict[frozenset[str], RandomTerm] = {}
    for term in (term for term in formula.random if term.intercept):
        first = seen.setdefault(frozenset(term.group), term)
        if first is not term and not first.slopes and not term.slopes:
            raise DesignError(
                f"the random terms {first.text} and {term.text} are the same: leave one out "
                "((1|a/b) stands for (1|a) + (1|b:a))"
            )
    for factor in (term[0] for term in formula.terms if len(term) == 1):
        # C(g) is g again, scale(g) is not.
        plain = isinstance(factor, Variable) or (
            isinstance(factor, Call) and factor.function in CATEGORICAL
        )
        if plain and (name := frozenset(names_in(factor))) in seen:
            raise DesignError(
                f"`{factor.text}` is a fixed effect and also the grouping factor of "
                f"{seen[name].text}: keep one of the two"
            )


def build_random(formula: Formula, table: dict[str, pd.Series]) -> list[Factor]:
    """Grouping factors in formula order.

    Raises
    ------
    DesignError
        If a factor has one level, or as many as there are samples.
    """
    names = dict.fromkeys(name for term in formula.random for name in term.group)
    single = {name: to_factor(table[name]) for name in names}
    factors = []
    for term in formula.random:
        codes, levels = interaction([single[name] for name in term.group])
        if len(levels) == 1:
            raise DesignError(
                f"the grouping factor `{term.name}` has one level, '{levels[0]}', in all "
                f"{len(codes)} samples: leave {term.text} out"
            )
        if len(levels) == len(codes):
            numeric = len(term.group) == 1 and kind_of(table[term.name]) == "numeric"
            remedy = (
                f"it is numeric: use it as a fixed effect, `{Variable(term.name).text}`"
                if numeric
                else f"it cannot be told from the residual: leave {term.text} out"
            )
            raise DesignError(
                f"the grouping factor `{term.name}` has as many levels as there are samples, "
                f"{len(codes)}; {remedy}"
            )
        factors.append((codes, levels))
    return factors


def identical_groupings(factors: dict[str, Factor]) -> list[tuple[str, str]]:
    """Pairs of factors that group the samples in the same way, whatever the levels are called."""
    return [
        (one, other)
        for one, other in combinations(factors, 2)
        if _same_partition(factors[one], factors[other])
    ]


def _same_partition(one: Factor, other: Factor) -> bool:
    if len(one[1]) != len(other[1]):
        return False
    partner = np.empty(len(one[1]), dtype=np.int32)
    partner[one[0]] = other[0]
    return bool((partner[one[0]] == other[0]).all())
