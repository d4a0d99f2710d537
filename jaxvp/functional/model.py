"""A design as a pytree: what the fit needs of formula and metadata, made once on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from jaxvp.batch.fitted import FixedPart
from jaxvp.design import DesignError, build
from jaxvp.formula import Formula
from jaxvp.fractions import RESIDUALS, mixed_names
from jaxvp.solver import Table, prepare
from jaxvp.statistics import (
    Array,
    Classes,
    Layout,
    Shared,
    compress,
    known_classes,
    layout,
    node_counts,
)

if TYPE_CHECKING:
    import pandas as pd

# Half the logarithm of the ratio of the sums of weights of two levels, up to which interpolation
# errs by no more than `jaxvp.fit` allows: a ratio of 10,000.
_HALF_RANGE = 0.5 * np.log(1e4)


class Design(eqx.Module):
    """Made by `jaxvp.functional.design`; a pytree whose leaves are arrays.

    Attributes
    ----------
    X : array [n, p]
        Fixed columns. Differentiate with respect to it, or put another in its place with
        `with_fixed_columns`.
    kept : int array [n]
        Places of the design's samples in the metadata: those with missing values are left out.
    columns, random_names, components : tuple of str
        Names of the columns of `Fit.coefficients`, of `Fit.theta`, and of `Fit.fractions` and
        `Fit.variances`.
    samples : tuple of str
        Names of the samples, in the order that measurements must have.
    reml : bool
    """

    X: Float[Array, "n p"]
    kept: Int[Array, " n"]
    level_of: Int[Array, " n"] | None  # of the eliminated random term; None: no random term
    others: Float[Array, "n q"] | None  # indicators of the other ones
    samples_per_level: Float[Array, " k"]
    classes: Classes | None
    table: Table | None  # starting points, for samples without weights
    columns: tuple[str, ...] = eqx.field(static=True)
    random_names: tuple[str, ...] = eqx.field(static=True)
    components: tuple[str, ...] = eqx.field(static=True)
    samples: tuple[str, ...] = eqx.field(static=True)
    reml: bool = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)  # elimination order
    order: tuple[int, ...] = eqx.field(static=True)  # elimination order -> formula order
    by_name: tuple[int, ...] = eqx.field(static=True)  # random terms among the components
    fixed_part: FixedPart = eqx.field(static=True)
    nodes: int = eqx.field(static=True)  # classes of weighted samples

    @property
    def layout(self) -> Layout | None:
        """Where the samples stand in the random terms; None without any."""
        if self.level_of is None or self.others is None:
            return None
        return Layout(self.level_of, self.others, self.levels[0])

    def with_fixed_columns(self, X: Float[Array, "n p"]) -> Design:
        """The same design with other values in its fixed columns, which may be traced.

        The table of starting points belongs to the columns that were there, and is left out.

        Raises
        ------
        ValueError
            If X is not of the same shape.
        """
        n, p = self.X.shape
        if jax.numpy.shape(X) != (n, p):
            raise DesignError(
                f"the fixed columns are {n} x {p} ({', '.join(self.columns)}) and X is "
                f"{' x '.join(map(str, jax.numpy.shape(X)))}: give a value for each of them"
            )
        return eqx.tree_at(
            lambda design: (design.X, design.table), self, (X, None), is_leaf=lambda x: x is None
        )

    def __repr__(self) -> str:
        method = "REML" if self.reml else "ML"
        return (
            f"jaxvp.functional.Design: {len(self.samples):,} samples, {method}, "
            f"components {', '.join(self.components)}"
        )


def design(formula: str, metadata: pd.DataFrame, *, reml: bool = False) -> Design:
    """Apply a formula to metadata: host code, to be called once, outside of ``jax.jit``.

    Parameters
    ----------
    formula
        As `jaxvp.fit` takes it; random intercepts and fixed terms.
    metadata
        Samples in rows, in the order of the measurements to come. Samples with missing values are
        left out: the measurements' rows are then ``Y[design.kept]``.
    reml
        Restricted maximum likelihood.

    Returns
    -------
    Design

    Raises
    ------
    FormulaError, DesignError
        As `jaxvp.fit` does; and for random slopes, which are not differentiated.
    """
    parsed = Formula.parse(formula)
    slopes = next((term for term in parsed.random if term.slopes), None)
    if slopes is not None:
        raise DesignError(
            f"{slopes.text} has a random slope, which jaxvp.functional does not fit: leave it "
            "out, or use jaxvp.fit"
        )
    found = build(parsed, metadata, reml)
    compression = compress(found)
    shared = compression.shared
    assert isinstance(shared, Shared)
    if found.codes:
        where = layout(found, shared)
        components, by_name = mixed_names(found)
        level_of, others, classes = where.level_of, where.others, known_classes(compression)
        nodes = int(node_counts(np.array([_HALF_RANGE]), where.levels, found.n)[0])
        with jax.enable_x64(True):
            table = prepare("newton", shared, reml)
    else:
        components, by_name = (*found.terms, RESIDUALS), ()
        level_of = others = classes = table = None
        nodes = 0
    return Design(
        X=found.X,
        kept=found.kept,
        level_of=level_of,
        others=others,
        samples_per_level=shared.samples_per_level,
        classes=classes,
        table=table,
        columns=tuple(found.columns),
        random_names=found.random_names,
        components=tuple(components),
        samples=found.samples,
        reml=reml,
        levels=shared.levels,
        order=shared.order,
        by_name=by_name,
        fixed_part=FixedPart.of(found),
        nodes=nodes,
    )
