r"""One gene without what a fitted model attributes to some of its terms.

Fixed terms add ``X_t b_t`` and random terms ``Z_k u_k``, with the best linear unbiased predictions
(BLUPs) of `jaxvp.prediction` at the estimates of the gene, from the observations that count for it,
with their weights. A gene is adjusted for some terms by taking away their parts, each without its
mean over the samples of the fit, so that the gene keeps its level:

    adjusted = y - sum_t (part_t - mean part_t),    t: all terms but those of the variables shown.

A term belongs to the variables shown if it reads no other variable, or groups the samples as one of
them does (plates with names of their own, in `Plate:Site`). The slope of ``(Days|Subject)`` is a
component of its own that reads both: it stays where both are shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxvp.design import Design
from jaxvp.design.variables import select
from jaxvp.expression import Again, DataError, Expression
from jaxvp.formula import names_in
from jaxvp.prediction import Tile
from jaxvp.results import Results
from jaxvp.results.lookup import find
from jaxvp.results.measured import Fit
from jaxvp.results.predictions import without

from .inputs import check_fitted


def adjust(
    measured: Expression,
    result: Results,
    gene: Any,
    shown: list[str],
    metadata: pd.DataFrame,
    weights: Any = None,
) -> Float[np.ndarray, " samples"]:
    """Measurements of a gene without what the terms explain that are not of these variables.

    Parameters
    ----------
    measured
        The measurements.
    result, gene
        The model and the gene's name in it.
    shown
        Variables whose terms stay.
    metadata
        Of the samples of `measured`, in their order.
    weights
        Those of the fit, where the result does not remember them.

    Returns
    -------
    array
        NaN for samples that the model does not have, or does not have of this gene.

    Raises
    ------
    DataError
        If the gene has no fit, or measurements or weights are not those of the fit.
    """
    design = result.design
    assert design is not None
    place = find(gene, result.fractions.index, "gene")
    check_fitted(result, place)
    rows = metadata.index.astype(str).get_indexer_for(list(design.samples))
    if len(rows) != design.n or (rows < 0).any():
        lost = next((s for s, row in zip(design.samples, rows, strict=False) if row < 0), "")
        raise DataError(
            f"the result was fitted to {design.n} samples, and of these data it lacks some "
            f"({lost!r}): pass those that were fitted"
        )
    column = find(gene, measured.gene_names, "gene")
    again = Again(measured.take(rows).reordered(np.array([column])), np.array([place]), True)
    fit = Fit(result, again, weights, "adjusted values")
    others = [name for name, own in _owners(design, shown, metadata.iloc[rows]) if not own]
    rest = without(fit, fit.choice(others), center=True)
    adjusted = np.full(len(metadata), np.nan)

    def use(tile: Tile) -> None:
        (values,) = rest(tile).T
        counts = True if tile.weights is None else tile.weights[:, 0] > 0
        adjusted[rows] = np.where(counts, values, np.nan)

    fit.stream(use)
    return adjusted


def _owners(design: Design, shown: list[str], metadata: pd.DataFrame) -> list[tuple[str, bool]]:
    """Every term, and whether it belongs to the variables shown."""
    partitions = [pd.factorize(column)[0] for column in select(metadata, tuple(shown)).values()]
    found = []
    for name, term in zip(design.terms, design.formula.terms, strict=True):
        reads = {variable for factor in term for variable in names_in(factor)}
        found.append((name, reads <= set(shown)))
    for i, (name, term) in enumerate(zip(design.random_names, design.random_terms, strict=True)):
        if design.slopes and design.multipliers[i] is not None:
            found.append((name, set(term.reads) <= set(shown)))
            continue
        alike = any(_same(design.codes[i], other) for other in partitions)
        found.append((name, set(term.group) <= set(shown) or alike))
    return found


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two codings put the samples into the same groups."""
    pairs = len(set(zip(one.tolist(), other.tolist(), strict=True)))
    return pairs == len(set(one.tolist())) == len(set(other.tolist()))
