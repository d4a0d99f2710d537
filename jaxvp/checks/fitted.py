"""A design that was fitted, looked at without its metadata.

A result keeps its design: the fixed columns X, the level of every sample in every grouping factor,
and the formula. That is nearly all that a check asks for. Numbers stand in X as they are. The
levels of a fixed factor are told apart by its columns together with those of the terms that it
contains (``a`` and ``b`` for ``a:b``): one level a distinct row. Coding does not change the span,
and so no canonical correlation.

What cannot be known is which samples were dropped before the fit, and whether a grouping factor
held numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from jaxvp.collinearity import Part
from jaxvp.design import Design
from jaxvp.design.fixed import label
from jaxvp.formula import Call, Expression, RandomTerm, Variable, names_in
from jaxvp.formula.calls import CATEGORICAL

from .structure import Grouping, Structure, absorbed, correlate, relations, summarise, within

Term = tuple[Expression, ...]


def examine_fitted(design: Design) -> Structure:
    """What `structure.examine` finds in the metadata of a design, found in the design."""
    formula = design.formula
    fixed = dict(zip(design.terms, formula.terms, strict=True))
    categorical = [name for name in design.terms if any(_is_factor(f, design) for f in fixed[name])]
    groupings = {
        name: _fixed_factor(name, fixed, design)
        for name in categorical
        if all(_is_factor(factor, design) for factor in fixed[name])
    }
    for term in formula.random:
        codes = _levels(term, design)
        groupings.setdefault(term.name, Grouping("random", term.group, codes, np.bincount(codes)))
    numbers = {
        factor.name: pd.Series(design.X[:, design.columns.index(factor.name)])
        for term in formula.terms
        for factor in term
        if isinstance(factor, Variable) and factor.name in design.columns
    }
    nested, identical = relations(groupings)
    return Structure(
        kept=design.n,
        dropped=(),
        missing={},
        numeric=tuple(name for name in design.terms if name not in categorical),
        fixed_factors=tuple(categorical),
        random=tuple(term.name for term in formula.random),
        factors=summarise(groupings),
        nested=nested,
        identical=identical,
        constant_within=within(numbers, groupings),
        absorbed=absorbed(design),
        correlations=correlate(_parts(design, fixed)),
        columns=design.p,
        rank=design.p,
        groupings=groupings,
        table=numbers,
    )


def _levels(term: RandomTerm, design: Design) -> Int[np.ndarray, " n"]:
    """The level of every sample; a term has one grouping factor, whatever varies in it."""
    names = design.random_names
    own = (
        i for i, name in enumerate(names) if name == term.name or name.startswith(f"{term.name}.")
    )
    return design.codes[next(own)]


def _is_factor(factor: Expression, design: Design) -> bool:
    """Whether a factor of a fixed term is categorical: its columns are named by levels."""
    if isinstance(factor, Call):
        return factor.function in CATEGORICAL
    start = f"{label(factor)}["
    pieces = (piece for column in design.columns for piece in column.split(":"))
    return any(piece.startswith(start) for piece in pieces)


def _columns(names: set[str], design: Design) -> Bool[np.ndarray, " p"]:
    """The fixed columns of these terms."""
    wanted = [i for i, name in enumerate(design.terms) if name in names]
    return np.isin(design.term_of_column, wanted)


def _fixed_factor(name: str, fixed: dict[str, Term], design: Design) -> Grouping:
    own = set(map(label, fixed[name]))
    inside = {other for other, term in fixed.items() if set(map(label, term)) <= own}
    codes = _rows(design.X[:, _columns(inside, design)])
    return Grouping("fixed", tuple(_variables(fixed[name])), codes, np.bincount(codes))


def _variables(term: Term) -> list[str]:
    """The variables of a term's factors."""
    return [name for factor in term for name in names_in(factor)]


def _rows(columns: np.ndarray) -> Int[np.ndarray, " n"]:
    """The number of each row among the different ones."""
    return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)


def _parts(design: Design, fixed: dict[str, Term]) -> list[Part]:
    """Fixed terms as their columns of X, random terms as levels, in the order of `read_parts`."""
    rows = np.ones(design.n, dtype=bool)
    parts = {
        frozenset(map(label, term)): Part(
            name, tuple(_variables(term)), rows, None, design.X[:, _columns({name}, design)]
        )
        for name, term in fixed.items()
    }
    for term in design.formula.random:
        codes = _levels(term, design).astype(np.int64) + 1
        part = Part(term.name, term.group, rows, codes, None)
        parts.setdefault(frozenset(term.group), part)
    order = design.formula.variables

    def place(labels: frozenset[str]) -> tuple[int, int]:
        return len(labels), max(order.index(name) for name in parts[labels].variables)

    return [parts[labels] for labels in sorted(parts, key=place)]
