"""A formula applied to metadata: what all genes of a study share.

`build` reads the variables (`variables`), drops samples with missing values, computes and codes the
fixed part (`fixed`, with `transforms` and `rank`), numbers the grouping factors (`random`), codes
what varies between their levels (`slopes`) and asks whether the samples determine it
(`information`).
What coded the samples is kept (`coding`), so that others can be coded alike (`others`).
The result holds arrays and names, no table; from here on nobody needs pandas or formulas.

Everything that makes a model unfit is found here, before any gene is looked at.
"""

from collections import Counter

import equinox as eqx
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxvp.formula import Formula, RandomTerm
from jaxvp.warning import warn

from .coding import Coding
from .counting import check_counting
from .fixed import FixedPart, build_fixed, label
from .given import given_variables, multipliers_at
from .information import check_information, explain_anything
from .random import build_random, check_random, identical_groupings
from .slopes import Multiplier, build_components, group_of, parts, theta_names
from .variables import DesignError, Factor, interaction, is_missing, select, to_names

__all__ = [
    "Coding",
    "Design",
    "DesignError",
    "build",
    "check_counting",
    "explain_anything",
    "given_variables",
    "multipliers_at",
]

RESERVED = ("Intercept", "Residuals")


class Design(eqx.Module):
    """A formula applied to metadata. Rows are the samples that were kept."""

    X: Float[np.ndarray, "n p"]
    """fixed columns, treatment-coded on the first level"""
    codes: tuple[Int[np.ndarray, " n"], ...]
    """int32, one per random component in formula order: 0..levels-1, every level present"""
    kept: Int[np.ndarray, " n"]
    """positions of these samples in the metadata"""
    columns: tuple[str, ...] = eqx.field(static=True)
    """names of X's columns: ``Intercept``, ``Age``, ``Tissue[T.B]``"""
    terms: tuple[str, ...] = eqx.field(static=True)
    """fixed terms without the intercept: ``Age``, ``Tissue``, ``Age:Tissue``"""
    term_of_column: tuple[int, ...] = eqx.field(static=True)
    """for each column of X its place in `terms`; -1 for the intercept"""
    random_names: tuple[str, ...] = eqx.field(static=True)
    """names of the random components: ``Individual``, ``Plate:Site``, ``Individual.Days``"""
    levels: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    """names of each random component's levels, in the order of the codes"""
    samples: tuple[str, ...] = eqx.field(static=True)
    """names of the samples"""
    formula: Formula = eqx.field(static=True)
    coding: Coding | None = eqx.field(static=True, default=None)
    """what other samples are coded with; None in results that an old version saved"""
    multipliers: tuple[Multiplier, ...] = ()
    """with random slopes: the column of each random component, None for an intercept"""
    coefficients: tuple[str, ...] = eqx.field(static=True, default=())
    """with random slopes: what varies, ``(Intercept)``, ``Days``, ``TissueB``, by component"""
    blocks: tuple[tuple[int, ...], ...] = eqx.field(static=True, default=())
    """with random slopes: the components of each correlated term"""
    slope_levels: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True, default=())
    """with random slopes: factors left of a bar, with their levels"""

    @property
    def slopes(self) -> bool:
        """Is there a random slope? If not every random component is a random intercept."""
        return bool(self.multipliers)

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of theta: the random components, or the entries of their relative factors."""
        if not self.slopes:
            return self.random_names
        return theta_names(self.random_names, self.coefficients, self.blocks)

    @property
    def groups(self) -> tuple[str, ...]:
        """Name of the grouping factor of each random component."""
        if not self.slopes:
            return self.random_names
        return tuple(map(group_of, self.random_names, self.coefficients))

    @property
    def random_terms(self) -> tuple[RandomTerm, ...]:
        """The term of the formula that each random component comes from."""
        if not self.slopes:
            return self.formula.random
        owners = [term for term in self.formula.random for _ in parts(term)]
        pairs = zip(self.blocks, owners, strict=True)
        return tuple(owner for block, owner in pairs for _ in block)

    @property
    def theta_diagonal(self) -> Bool[np.ndarray, " m"]:
        """Which entries of theta are relative standard deviations, zero or more."""
        sizes = [len(block) for block in self.blocks] or [1] * len(self.random_names)
        each = [np.arange(size, 0, -1) for size in sizes]  # columns of a lower triangle
        parts = [np.arange(length) == 0 for lengths in each for length in lengths]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.X.shape[0]

    @property
    def p(self) -> int:
        """Number of fixed columns."""
        return self.X.shape[1]

    def __repr__(self) -> str:
        names = [*self.columns[:6], "..."] if self.p > 6 else self.columns
        lines = [
            f"jaxvp.Design: {self.n:,} samples, {self.formula.text}",
            f"  fixed columns: {self.p}" + (f" ({', '.join(names)})" if names else ""),
        ]
        for name, levels in zip(self.random_names, self.levels, strict=True):
            lines.append(f"  random term {name}: {len(levels):,} levels")
        return "\n".join(lines)


def build(formula: Formula, metadata: pd.DataFrame, reml: bool = False) -> Design:
    """Apply a formula to metadata.

    Parameters
    ----------
    formula
        What `Formula.parse` returned.
    metadata
        Samples in rows, variables in columns; the index names the samples.
    reml
        Whether the model will be fitted by REML, which needs a random term.

    Returns
    -------
    Design
        Transforms (`scale`, `poly`, ...) are computed on the samples that are kept.

    Raises
    ------
    DesignError
        If the model cannot be fitted; the message names the culprit and the remedy.

    Warns
    -----
    UserWarning
        If samples are dropped for missing values, a categorical fixed effect stands beside random
        terms, or two factors group the samples identically; one warning each.
    """
    if len(metadata) == 0:
        raise DesignError("the metadata has no samples")
    table = select(metadata, formula.variables)
    check_random(formula)
    if reml and not formula.random:
        raise DesignError(
            "REML needs a random term and the formula has none: "
            "use reml=False, or add one such as (1|Individual)"
        )
    keep = _complete(table, len(metadata))
    if not keep.all():
        table = {name: column.loc[keep] for name, column in table.items()}
        metadata = metadata.loc[keep, []]
    fixed = build_fixed(formula, table, metadata.index)
    groups = build_random(formula, table)
    random = build_components(formula, groups, table, metadata.index)
    slopes = any(term.slopes for term in formula.random)
    check_information(fixed.X, random.codes, random.terms, reml, random.multipliers)
    _check_names(formula, fixed, random.names)
    _warn(formula, fixed, groups)
    return Design(
        X=fixed.X,
        codes=random.codes,
        kept=np.flatnonzero(keep),
        columns=fixed.columns,
        terms=fixed.terms,
        term_of_column=fixed.term_of_column,
        random_names=random.names,
        levels=random.levels,
        samples=to_names(metadata.index),
        formula=formula,
        coding=Coding.of(fixed.factors, fixed.states),
        multipliers=random.multipliers if slopes else (),
        coefficients=random.coefficients if slopes else (),
        blocks=random.blocks if slopes else (),
        slope_levels=random.slope_levels,
    )


def _complete(table: dict[str, pd.Series], n: int) -> Bool[np.ndarray, " n"]:
    """The samples that have a value of every variable; says how many have not."""
    keep = np.ones(n, dtype=bool)
    counts = {}
    for name, column in table.items():
        missing = is_missing(column)
        if missing.all():
            raise DesignError(
                f"`{name}` is missing in all {n} samples: leave it out of the formula"
            )
        if missing.any():
            counts[name] = int(missing.sum())
            keep &= ~missing
    where = ", ".join(f"`{name}` ({count})" for name, count in counts.items())
    if keep.sum() < 2:
        left = "no sample is" if not keep.any() else "one sample is"
        remedy = f"missing values are in {where}" if where else "a model needs several"
        raise DesignError(f"{left} left of {n} to fit a model on: {remedy}")
    if not keep.all():
        warn(f"{n - keep.sum()} of {n} samples are dropped for missing values in {where}")
    return keep


def _check_names(formula: Formula, fixed: FixedPart, random: tuple[str, ...]) -> None:
    """Every name must mean one thing in the tables of results."""
    own = fixed.columns[1:] if formula.intercept else fixed.columns
    names = [*RESERVED, *own, *random]
    # Without random terms it is the fixed terms that are the components.
    for taken in (names, [*RESERVED, *fixed.terms]):
        twice = [name for name, count in Counter(taken).items() if count > 1]
        if twice:
            what = "reserved for results" if twice[0] in RESERVED else "the name of two things"
            raise DesignError(f"`{twice[0]}` is {what}: rename a column of the metadata")


def _warn(formula: Formula, fixed: FixedPart, groups: list[Factor]) -> None:
    """Models that can be fitted and are seldom meant."""
    if not groups:
        return
    if fixed.factors:
        names = ", ".join(f"`{name}`" for name in fixed.factors)
        warn(
            f"categorical fixed effects beside random terms: {names}. variancePartition advises "
            "to make all categorical variables random, (1|g), if one is: the fractions of fixed "
            "and of random ones are not comparable"
        )
    # Terms of one grouping factor, an intercept and a slope, are meant to group alike.
    pairs = list(zip(formula.random, groups, strict=True))
    firsts = {term.group: (term, group) for term, group in reversed(pairs)}
    factors = {term.text: group for term, group in reversed(firsts.values())}
    for name, term in zip(fixed.terms, formula.terms, strict=True):
        labels = [label(factor) for factor in term]
        if all(name in fixed.factors for name in labels):
            factors[name] = interaction([fixed.factors[name] for name in labels])
    same = identical_groupings(factors)
    if same:
        pairs = ", ".join(f"`{one}` and `{other}`" for one, other in same)
        warn(
            f"these group the samples identically, so that their shares cannot be told apart: "
            f"{pairs}. Leave one of them out"
        )
