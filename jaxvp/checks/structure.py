"""The structure of a design: which samples stay, how its factors lie in one another.

All of it is counting. With the integer codes of two factors, the pairs of levels that are there say
it all: one factor is nested in another if there are as many pairs as it has levels, and the two are
identical if that holds both ways. A random term is *absorbed* by the fixed part if its indicators
lie in the span of X = Q R, that is if sum_j |z_j|^2 - |Q'z_j|^2 (of n) is zero: nothing is left
that its variance could explain.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from jaxvp.collinearity import Part, pairwise, read_parts
from jaxvp.collinearity.canonical import columns_of, orthonormal
from jaxvp.design import Design
from jaxvp.design.fixed import label
from jaxvp.design.variables import (
    DesignError,
    interaction,
    is_missing,
    kind_of,
    to_factor,
    to_names,
    to_numbers,
)
from jaxvp.formula import Call, Expression, Formula, Variable, names_in
from jaxvp.formula.calls import CATEGORICAL

# A wider fixed part is counted, but not decomposed: such a model is refused anyway.
_MOST_CELLS = 20_000_000
_ABSORBED = 1e-9
TABLE = ("role", "levels", "least", "median", "most", "seen_once")


@dataclass(frozen=True)
class Grouping:
    """A factor on the samples that are kept."""

    role: str
    variables: tuple[str, ...]
    codes: Int[np.ndarray, " kept"]
    sizes: Int[np.ndarray, " levels"]


@dataclass(frozen=True)
class Structure:
    """What was found out; the fields of `DesignCheck` of these names, and more."""

    kept: int
    dropped: tuple[str, ...]
    missing: dict[str, int]
    numeric: tuple[str, ...]
    fixed_factors: tuple[str, ...]
    random: tuple[str, ...]
    factors: pd.DataFrame
    nested: tuple[tuple[str, str], ...]
    identical: tuple[tuple[str, str], ...]
    constant_within: tuple[tuple[str, str], ...]
    absorbed: tuple[str, ...]
    correlations: pd.DataFrame | None
    columns: int | None
    rank: int | None
    groupings: dict[str, Grouping]
    """by name; with the table of the variables, on the kept samples, not part of the report"""
    table: dict[str, pd.Series]

    def public(self) -> dict[str, Any]:
        """What the report shows, by name."""
        private = ("groupings", "table")
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in private
        }


def examine(
    formula: Formula,
    metadata: pd.DataFrame,
    table: dict[str, pd.Series],
    design: Design | None,
) -> Structure:
    """Look at a model; `design` is None where it could not be built, `table` what there is."""
    absent = {name: is_missing(column) for name, column in table.items()}
    keep = np.ones(len(metadata), dtype=bool)
    for name in absent:
        if not absent[name].all():  # else nothing were left to look at
            keep &= ~absent[name]
    rows = {name: column.loc[keep] for name, column in table.items() if not absent[name].all()}
    categorical = {
        ":".join(map(label, term)) for term in formula.terms if any(_levels(f, rows) for f in term)
    }
    fixed = [":".join(map(label, term)) for term in formula.terms]
    groupings = _groupings(formula, rows)
    nested, identical = relations(groupings)
    parts = _parts(formula, metadata)
    columns, rank = (
        (design.p, design.p)
        if design is not None
        else _rank(formula, _parts(formula, metadata, fixed_only=True), keep)
    )
    return Structure(
        kept=int(keep.sum()),
        dropped=to_names(metadata.index[~keep]),
        missing={name: int(gone.sum()) for name, gone in absent.items() if gone.any()},
        numeric=tuple(name for name in fixed if name not in categorical),
        fixed_factors=tuple(name for name in fixed if name in categorical),
        random=tuple(term.name for term in formula.random),
        factors=summarise(groupings),
        nested=nested,
        identical=identical,
        constant_within=within(_numbers(formula, rows), groupings),
        absorbed=() if design is None else absorbed(design),
        correlations=correlate(parts),
        columns=columns,
        rank=rank,
        groupings=groupings,
        table=rows,
    )


def _levels(factor: Expression, table: dict[str, pd.Series]) -> str | None:
    """The variable of a categorical factor of a fixed term."""
    if isinstance(factor, Call) and factor.function in CATEGORICAL:
        return next(names_in(factor))
    if isinstance(factor, Variable) and factor.name in table:
        return factor.name if kind_of(table[factor.name]) == "categorical" else None
    return None


def _groupings(formula: Formula, table: dict[str, pd.Series]) -> dict[str, Grouping]:
    """Every factor of the formula whose variables are there: fixed ones, then random ones."""
    wanted: dict[str, tuple[str, list[str | None]]] = {}
    for term in formula.terms:
        names = [_levels(factor, table) for factor in term]
        if all(names):
            wanted[":".join(map(label, term))] = ("fixed", names)
    for term in formula.random:
        wanted.setdefault(term.name, ("random", list(term.group)))
    found = {}
    for name, (role, variables) in wanted.items():
        known = [table[variable] for variable in variables if variable in table]
        if len(known) < len(variables) or not len(known[0]):
            continue
        try:
            codes, _ = interaction([to_factor(column) for column in known])
        except DesignError:  # values that cannot be levels: the message of `build` says so
            continue
        found[name] = Grouping(role, tuple(map(str, variables)), codes, np.bincount(codes))
    return found


def summarise(groupings: dict[str, Grouping]) -> pd.DataFrame:
    """`DesignCheck.factors`."""
    rows = [
        (
            group.role,
            len(group.sizes),
            int(group.sizes.min()),
            float(np.median(group.sizes)),
            int(group.sizes.max()),
            int((group.sizes == 1).sum()),
        )
        for group in groupings.values()
    ]
    return pd.DataFrame(rows, index=pd.Index(list(groupings), dtype=object), columns=list(TABLE))


def relations(
    groupings: dict[str, Grouping],
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Pairs (inner, outer), and identical pairs; not what the names say anyway (a in a:b)."""
    nested, identical = [], []
    informative = {name: group for name, group in groupings.items() if len(group.sizes) > 1}
    for one, other in permutations(informative, 2):
        inner, outer = informative[one], informative[other]
        pairs = np.unique(inner.codes.astype(np.int64) * len(outer.sizes) + outer.codes)
        if len(pairs) > len(inner.sizes):
            continue
        if len(inner.sizes) == len(outer.sizes):
            if (other, one) not in identical:
                identical.append((one, other))
        elif not set(outer.variables) < set(inner.variables):
            nested.append((one, other))
    return tuple(nested), tuple(identical)


def _numbers(formula: Formula, table: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """The numeric variables of the fixed terms, by name."""
    return {
        name: table[name]
        for term in formula.terms
        for factor in term
        if _levels(factor, table) is None
        for name in names_in(factor)
        if name in table and kind_of(table[name]) == "numeric"
    }


def within(
    numbers: dict[str, pd.Series], groupings: dict[str, Grouping]
) -> tuple[tuple[str, str], ...]:
    """Pairs (number, random term) where the number is the same in all samples of a level."""
    found = []
    for name, column in numbers.items():
        values = to_numbers(column)
        for random, group in groupings.items():
            repeats = len(group.sizes) < len(group.codes)
            if group.role == "random" and repeats and name not in group.variables:
                order = np.argsort(group.codes, kind="stable")
                starts = np.concatenate([[0], np.cumsum(group.sizes)[:-1]])
                low = np.minimum.reduceat(values[order], starts)
                high = np.maximum.reduceat(values[order], starts)
                if (low == high).all() and len(np.unique(low)) > 1:
                    found.append((name, random))
    return tuple(found)


def absorbed(design: Design) -> tuple[str, ...]:
    """Random terms that the fixed part explains completely."""
    q = np.linalg.qr(design.X / np.maximum(np.linalg.norm(design.X, axis=0), 1e-300))[0]
    names = []
    multipliers = design.multipliers or (None,) * len(design.codes)
    for name, codes, slope in zip(design.random_names, design.codes, multipliers, strict=True):
        if slope is not None:
            continue
        inside = sum(
            (np.bincount(codes, weights=column) ** 2).sum() for column in np.ascontiguousarray(q.T)
        )
        if design.n - inside < _ABSORBED * design.n:
            names.append(name)
    return tuple(names)


def _parts(formula: Formula, metadata: pd.DataFrame, fixed_only: bool = False) -> list[Part]:
    """The terms as columns; none where one of them cannot be computed."""
    try:
        return read_parts(formula, metadata, fixed_only=fixed_only)
    except (DesignError, NotImplementedError):
        return []


def correlate(parts: list[Part]) -> pd.DataFrame | None:
    """Canonical correlations of the terms, if there are several."""
    if len(parts) < 2:
        return None
    try:
        names = [part.name for part in parts]
        return pd.DataFrame(pairwise(parts), index=names, columns=names)
    except DesignError:  # a constant: the message of `build` says so
        return None


def _rank(
    formula: Formula, parts: list[Part], keep: Bool[np.ndarray, " n"]
) -> tuple[int | None, int | None]:
    """Columns and rank of a fixed part that `build` refused, coded as in R."""
    if len(parts) < len(formula.terms) or keep.sum() < 2:
        return None, None
    widths = [_width(part, keep) for part in parts]
    # All main effects are coded in full here, and the first level of each but one says nothing new.
    factors = [part for part in parts if part.numbers is None and len(part.variables) == 1]
    spare = len(factors) if formula.intercept else max(len(factors) - 1, 0)
    count = int(formula.intercept) + sum(widths) - spare
    if not parts or sum(widths) * keep.sum() > _MOST_CELLS:
        return count, None if parts else count
    X = np.column_stack([columns_of(part, keep) for part in parts])
    if formula.intercept:
        return count, 1 + orthonormal(X).shape[1]
    return count, int(np.linalg.matrix_rank(X / np.maximum(np.abs(X).max(axis=0), 1e-300)))


def _width(part: Part, keep: Bool[np.ndarray, " n"]) -> int:
    numbers = 1 if part.numbers is None else part.numbers.shape[1]
    if part.codes is None:
        return numbers
    codes = part.codes[keep]
    return len(np.unique(codes[codes > 0])) * numbers


def pairs_above(correlations: pd.DataFrame | None, limit: float) -> list[tuple[str, str]]:
    """Pairs of variables whose canonical correlation is above a limit."""
    if correlations is None:
        return []
    values, names = correlations.to_numpy(), list(correlations.columns)
    return [
        (names[i], names[j]) for i, j in combinations(range(len(names)), 2) if values[i, j] > limit
    ]
